"""What an audit goes by: how far a batch has come, and how long it may be left alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from floopy_common.domain.segment import Sink


def _nothing() -> dict[Sink, int]:
    return dict.fromkeys(Sink, 0)


@dataclass(frozen=True)
class Standing:
    """How far one batch has come, in lines, by its segments and receipts."""

    answered: int = 0
    """Of written segments."""
    emitted: int = 0
    """Of segments whose events have been out at least once."""
    confirmed: Mapping[Sink, int] = field(default_factory=_nothing)
    """By each sink's receipts."""
    parked: int = 0
    """Of what all sinks have confirmed together."""
    waiting_since: datetime | None = None
    """When the first left of the segments that are emitted and not marked as confirmed; None without any."""


@dataclass(frozen=True)
class Pause:
    """Seconds until the next audit of a batch that does not move: doubled each time, within these bounds."""

    shortest: float
    longest: float
