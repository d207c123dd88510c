"""What a batch's reservation of its organisation's monthly cap ends as."""

from typing import NamedTuple


class Settled(NamedTuple):
    """A batch that turns what it holds of its organisation's month into `lines` used (0 gives it back)."""

    org_id: str
    batch_id: str
    month: str
    lines: int
