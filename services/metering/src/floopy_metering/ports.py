"""What metering needs of the outside, as small as it needs it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from floopy_common.domain.segment import Sink
from floopy_common.events.lines import SegmentRef

Document = dict[str, Any]
"""A stored document; collections.py says what each holds."""

Hit = Callable[[str], None]
"""Passes a named step at which a test may kill the process."""


class Segment(Protocol):
    """A segment of a batch that has `segments` of them."""

    @property
    def org_id(self) -> str: ...

    @property
    def batch_id(self) -> str: ...

    @property
    def segments(self) -> int: ...

    @property
    def segment(self) -> SegmentRef: ...


class Reservation(Protocol):
    """Lines an ended batch still holds of a cap; `segments` is None where it was never planned."""

    @property
    def org_id(self) -> str: ...

    @property
    def month(self) -> str: ...

    @property
    def batch_id(self) -> str: ...

    @property
    def status(self) -> str: ...

    @property
    def segments(self) -> int | None: ...


class Batches(Protocol):
    async def get(self, batch_id: str) -> Document | None: ...


class Ledger(Protocol):
    async def groups(self, batch_id: str, first_line: int, last_line: int) -> list[Document]:
        """Usage of the lines by hour, provider, model, key and endpoint."""
        ...


class Rollups(Protocol):
    async def replace(self, rollup: Document) -> None: ...

    async def totals(self, batch_id: str) -> Mapping[str, int]:
        """Every figure summed over the batch's segments."""
        ...


class Receipts(Protocol):
    async def count(self, sink: Sink, batch_id: str) -> int:
        """Segments of the batch that the sink has confirmed."""
        ...


class UsageBatches(Protocol):
    async def get(self, batch_id: str) -> Document | None: ...

    async def insert(self, usage: Document) -> bool:
        """False when it is there already."""
        ...

    async def revise(self, usage: Document, pending: Document) -> bool:
        """False when the revision before is not there any more."""
        ...

    async def mark_settled(self, batch_id: str) -> None: ...


class Caps(Protocol):
    async def settle(self, org_id: str, batch_id: str, month: str, lines: int) -> bool:
        """False, and no change, when the batch holds no reservation any more."""
        ...


class Reservations(Protocol):
    async def ended(self) -> Sequence[Reservation]:
        """What batches that have ended still hold."""
        ...
