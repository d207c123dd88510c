"""What metering needs of the outside, as small as it needs it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from floopy_common.domain.segment import Sink
from floopy_common.domain.settled import Settled
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

    @property
    def tally(self) -> object:
        """What counted its rows while they were stored, None where nobody did."""
        ...


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


class Plan(Protocol):
    """Whose usage a batch's is, and the month it counts for."""

    @property
    def org_id(self) -> str: ...

    @property
    def month(self) -> str: ...


class Plans(Protocol):
    async def get_many(self, batch_ids: Collection[str]) -> Mapping[str, Plan]:
        """Those of these batches that have a plan."""
        ...


class Ledger(Protocol):
    async def groups(self, segments: Sequence[Segment]) -> Sequence[list[Document]]:
        """Of each segment, its usage by hour, provider, model, key and endpoint."""
        ...


class Rollups(Protocol):
    async def replace_all(self, rollups: Sequence[Document]) -> None: ...

    async def totals(self, batch_ids: Collection[str]) -> Mapping[str, Mapping[str, int]]:
        """Every figure of each batch summed over its segments."""
        ...


class Receipts(Protocol):
    async def count(self, sink: Sink, batch_ids: Collection[str]) -> Mapping[str, int]:
        """How many segments of each batch the sink has confirmed."""
        ...


class UsageBatches(Protocol):
    async def get_many(self, batch_ids: Collection[str]) -> Mapping[str, Document]: ...

    async def insert(self, usage: Sequence[Document]) -> set[str]:
        """Insert what is not there yet; the batches of which something is."""
        ...

    async def revise(self, usage: Document, pending: Document) -> bool:
        """False when the revision before is not there any more."""
        ...

    async def mark_settled(self, batch_ids: Collection[str]) -> None: ...


class Caps(Protocol):
    async def settle_all(self, settled: Sequence[Settled]) -> None:
        """What holds no reservation any more is left as it is."""
        ...


class Reservations(Protocol):
    async def ended(self) -> Sequence[Reservation]:
        """What batches that have ended still hold."""
        ...
