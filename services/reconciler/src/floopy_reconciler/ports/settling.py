"""Collecting and keeping results."""

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from floopy_common.domain.shard import ShardEnd
from floopy_common.providers.port import ResultStream
from floopy_reconciler.ports.shared import Document


class Hold(Protocol):
    """One shard, held by this worker alone; each call ends the hold or raises LeaseLost."""

    @property
    def shard(self) -> Document: ...

    async def settle(self, archive: Document | None, ended: ShardEnd) -> None: ...

    async def download_again(self, delay: float) -> None: ...

    async def let_go(self, delay: float) -> None: ...

    async def detach(self) -> None: ...


class SettlingStore(Protocol):
    def hold(self, shard: Document) -> AbstractAsyncContextManager[Hold | None]: ...

    async def requeue(self, shard: Document, delay: float, refusals: int) -> bool: ...

    async def refuse(self, shard: Document, refused: Document) -> bool: ...

    async def insert_retry(self, shard: Document) -> bool: ...


class LineIndexes(Protocol):
    async def read(self, index_blob: str, batch_id: str, plan_id: str, segments: Iterable[int]) -> bytes: ...

    async def starts(self, batch_id: str, plan_id: str, segments: Iterable[int]) -> list[tuple[int, int]]: ...


class Archived(Protocol):
    """Archived results, readable at random; `path`: where other processes find them meanwhile."""

    @property
    def path(self) -> str | None: ...

    def __len__(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes:
        """Raises BlobCorrupt when they end before that."""
        ...


class Received(Protocol):
    """A download that came through; whoever asked for it drops it in the end."""

    async def keep(self) -> str:
        """Archive the bytes verbatim for the batch; the blob's id, by which they are then known."""
        ...

    async def drop(self) -> None:
        """Leave nothing behind of what was not kept."""
        ...


Feed = Callable[[bytes], None]
"""Gets bytes in their order as they arrive, beside the event loop."""


class Archives(Protocol):
    """Provider results on this machine's disk, and for good in blobs."""

    async def receive(self, stream: ResultStream, batch_id: str, feed: Feed) -> Received:
        """Take a download of a batch's results; `feed` has seen all of it afterwards.

        Raises Unavailable when it is not as long as announced, ResultsTooLarge when it never ends.
        """
        ...

    async def keep_index(self, packed: bytes, batch_id: str) -> str:
        """Keep a result index for a batch; the blob's id."""
        ...

    def open(self, blob_id: str) -> AbstractAsyncContextManager[Archived]:
        """An archived blob's bytes, fetched to disk when they are not there."""
        ...


class CollectReports(Protocol):
    def waiting(self, shards: int) -> None:
        """So many have ended and wait for room."""
        ...


class SettleReports(Protocol):
    def settled(self, ended: ShardEnd) -> None: ...

    def detached(self) -> None: ...

    def retried(self, lines: int) -> None: ...

    def quarantined(self, kind: str, lines: int) -> None: ...

    def download_quarantined(self) -> None:
        """Results that several workers died of are left alone for a while."""
        ...
