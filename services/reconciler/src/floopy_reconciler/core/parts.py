"""A segment's output and error part: stored the first time, compared with what was stored ever after."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from hashlib import sha256
from types import TracebackType
from typing import Protocol, Self

from floopy_reconciler.ports import Document, PartBlobs, PartWriter


class Part(Protocol):
    """Takes the bytes of one part; `id` is the blob they are in."""

    id: str

    async def write(self, pieces: Sequence[bytes]) -> None: ...


class _Nothing(Exception):  # noqa: N818 - says what happened
    """The part has no lines, so there is no blob to publish."""


class NewPart:
    """Stores a part for a batch; a part without lines leaves nothing behind.

    Use as a context: the blob is there after a clean exit, `stored` says where, `on_stored` runs then.
    """

    def __init__(self, blobs: PartBlobs, batch_id: str, on_stored: Callable[[], None]) -> None:
        self._blobs = blobs
        self._batch_id = batch_id
        self._on_stored = on_stored
        self._stack = AsyncExitStack()
        self._writer: PartWriter
        self._length = 0
        self.id = ""
        self.stored: Document | None = None

    async def __aenter__(self) -> Self:
        self._writer = await self._stack.enter_async_context(self._blobs.writer("part", [self._batch_id]))
        self.id = self._writer.id
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None and self._length == 0:
            nothing = _Nothing()
            await self._stack.__aexit__(_Nothing, nothing, None)
        else:
            await self._stack.__aexit__(kind, error, traceback)
        if error is not None:
            return
        if self._length:
            blob = self._writer.blob
            self.stored = {"blob": blob.id, "length": blob.length, "sha256": blob.sha256}
        self._on_stored()

    async def write(self, pieces: Sequence[bytes]) -> None:
        if pieces:
            self._length += sum(map(len, pieces))
            await self._writer.write_all(pieces)


class StoredPart:
    """Compares what is rendered with what a manifest says was stored."""

    def __init__(self, part: Document | None) -> None:
        self._part = part
        self._digest = sha256()
        self.id: str = "" if part is None else part["blob"]

    async def write(self, pieces: Sequence[bytes]) -> None:
        self._digest.update(b"".join(pieces))

    @property
    def is_the_same(self) -> bool:
        expected = sha256().hexdigest() if self._part is None else self._part["sha256"]
        return bool(self._digest.hexdigest() == expected)
