"""Writing segments and sending their events."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from floopy_common.domain.segment import SegmentState
from floopy_common.providers.port import ResultFormat
from floopy_reconciler.ports.shared import Document

Record = tuple[bytes, bytes]
"""Key and value of an event."""


Formats = Callable[[str], ResultFormat]
"""How the provider of this name writes its results."""


class EventProducer(Protocol):
    async def send_batch(self, topic: str, partition: int, records: Sequence[Record]) -> tuple[int, int]:
        """First and last offset. Raises Transient when it is unknown what arrived, Invalid for a giant."""
        ...


class StoredBlob(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def length(self) -> int: ...

    @property
    def sha256(self) -> str: ...


class PartWriter(Protocol):
    """The bytes of one part; known as `blob` once its context was left without an error."""

    id: str

    @property
    def blob(self) -> StoredBlob: ...

    async def write_all(self, pieces: Sequence[bytes]) -> None: ...


class PartBlobs(Protocol):
    def writer(self, kind: str, pins: Iterable[str] = ()) -> AbstractAsyncContextManager[PartWriter]: ...


class SegmentInputs(Protocol):
    async def index(self, index_blob: str, first: int, stop: int) -> bytes: ...

    async def read(self, ranges: Iterable[Mapping[str, Any]], offset: int, length: int) -> bytes: ...


class SegmentHold(Protocol):
    """One segment, held by this worker alone; each call may raise LeaseLost."""

    @property
    def segment(self) -> Document: ...

    async def written(
        self, manifest: Document, counts: Mapping[str, int], usage: Mapping[str, int]
    ) -> None: ...

    async def emitted(self, partition: int, first_offset: int, last_offset: int) -> None: ...

    async def give_back(self, delay: float, *, failed: bool) -> None: ...


class SegmentClaim(Protocol):
    @property
    def segment(self) -> Document: ...

    def hold(self) -> AbstractAsyncContextManager[SegmentHold]: ...


class Segments(Protocol):
    async def claim(self, states: Collection[SegmentState], after: str) -> SegmentClaim | None: ...

    async def claim_one(self, segment_id: str, states: Collection[SegmentState]) -> SegmentClaim | None: ...

    async def shards_of(self, segment: Document) -> list[Document]: ...


class SegmentReports(Protocol):
    def written(self, lines: int, seconds: float) -> None: ...

    def emitted(self, lines: int, seconds: float, *, again: bool) -> None: ...

    def differs(self) -> None:
        """A segment no longer renders to the bytes that were stored."""
        ...

    def stuck(self) -> None:
        """A segment could not be rendered at all."""
        ...

    def quarantined(self) -> None:
        """A segment that several workers died of is left alone for a while."""
        ...

    def noted(self, note: str, lines: int) -> None:
        """What the translation of answers had to say about lines."""
        ...
