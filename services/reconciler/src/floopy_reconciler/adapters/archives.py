"""Archived results on this machine's disk: a cache in front of the blobs that may be lost at any time."""

import asyncio
import contextlib
import hashlib
import logging
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Self

from floopy_common.domain.errors import BlobCorrupt, BlobMissing
from floopy_common.providers.port import ResultStream, Unavailable
from floopy_common.stores.blobs import Blob, BlobStore, BlobWriter
from floopy_reconciler.adapters.files import StoredFile
from floopy_reconciler.errors import ResultsTooLarge
from floopy_reconciler.metrics import DOWNLOAD_SECONDS, DOWNLOADED_BYTES
from floopy_reconciler.ports import Archived, Feed

_log = logging.getLogger(__name__)

_PIECE = 1024 * 1024
"""Written and read at once, off the event loop."""
_PART = ".part"
_TRIM_EVERY = 60.0
"""Seconds between two looks through the directory while its bound is not reached: there may be many files."""
_ABANDONED = 3_600.0
"""Seconds after which a file that is still being written belongs to a process that died."""


class _NotKept(Exception):  # noqa: N818 - says what happened
    """Nobody wants the download, so there is no blob to publish."""


class Download:
    """One download, on disk and at the same time in a blob, which is there from `keep` on."""

    def __init__(self, archives: "ScratchArchives", path: Path, writer: BlobWriter) -> None:
        self.path = path
        self.writer = writer
        self._archives = archives
        self._publishing = AsyncExitStack()

    @classmethod
    async def begun(cls, archives: "ScratchArchives", blobs: BlobStore, path: Path, batch_id: str) -> Self:
        async with AsyncExitStack() as stack:
            writer = await stack.enter_async_context(blobs.writer("archive", [batch_id]))
            download = cls(archives, path, writer)
            download._publishing = stack.pop_all()
            return download

    async def keep(self) -> str:
        """The file is then found under the blob's id."""
        await self._publishing.aclose()
        await self._archives.adopt(self.path, self.writer.blob)
        return self.writer.blob.id

    async def drop(self) -> None:
        """Nothing is left of it, unless it was kept."""
        try:
            # without effect once it was published
            await self._publishing.__aexit__(_NotKept, _NotKept(), None)
        finally:
            self.path.unlink(missing_ok=True)


@contextmanager
def viewed(path: Path) -> Iterator[Archived]:
    """The file's bytes, each read when it is asked for."""
    with path.open("rb", buffering=0) as file:
        yield StoredFile(file.fileno())


async def _flush(take: Feed, writer: BlobWriter, piece: Sequence[bytes]) -> None:
    block = b"".join(piece)
    taking = asyncio.create_task(asyncio.to_thread(take, block))
    try:
        await writer.write(block)
    finally:
        await taking


class ScratchArchives:
    """Files named after their blobs; `max_result` and `max_total` in bytes."""

    def __init__(self, directory: Path, blobs: BlobStore, *, max_result: int, max_total: int) -> None:
        self._directory = directory
        self._blobs = blobs
        self._max_result = max_result
        self._max_total = max_total
        self._trusted: set[str] = set()
        self._total = 0
        self._trim_at = 0.0
        directory.mkdir(parents=True, exist_ok=True)

    async def receive(self, stream: ResultStream, batch_id: str, feed: Feed) -> Download:
        """Take a download; Unavailable when its length is not as announced, or ResultsTooLarge."""
        started = time.monotonic()
        download = await Download.begun(self, self._blobs, self._new_part(), batch_id)
        try:
            size = await self._write(download, stream, feed)
        except BaseException:
            await download.drop()
            raise
        DOWNLOADED_BYTES.inc(size)
        DOWNLOAD_SECONDS.observe(time.monotonic() - started)
        return download

    async def _write(self, download: Download, stream: ResultStream, feed: Feed) -> int:
        """One piece is read and stored while the next one arrives."""
        size = 0

        def take(block: bytes) -> None:
            file.write(block)
            feed(block)

        with await asyncio.to_thread(download.path.open, "wb") as file:
            flushing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            flushing.set_result(None)
            try:
                async with aclosing(self._pieces(stream)) as pieces:
                    async for piece in pieces:
                        await flushing
                        size += sum(map(len, piece))
                        flushing = asyncio.create_task(_flush(take, download.writer, piece))
                await flushing
            finally:
                # not before its thread has let go of the file
                await asyncio.gather(flushing, return_exceptions=True)
        if stream.content_length is not None and size != stream.content_length:
            raise Unavailable(f"{size} of {stream.content_length} bytes came")
        return size

    async def _pieces(self, stream: ResultStream) -> AsyncGenerator[list[bytes], None]:
        """What comes, in lists that are worth a flush; ResultsTooLarge when it is too much."""
        pending: list[bytes] = []
        held = size = 0
        async for chunk in stream.chunks:
            pending.append(chunk)
            held += len(chunk)
            if held >= _PIECE:
                size += held
                self._check_size(size)
                yield pending
                pending, held = [], 0
        self._check_size(size + held)
        yield pending

    def _check_size(self, size: int) -> None:
        if size > self._max_result:
            raise ResultsTooLarge(f"more than {self._max_result} bytes")

    async def adopt(self, path: Path, blob: Blob) -> None:
        """From now on the file is the copy of that blob."""
        await asyncio.to_thread(path.replace, self._directory / blob.id)
        self._trusted.add(blob.id)
        self._total += blob.length
        if self._total > self._max_total or time.monotonic() >= self._trim_at:
            self._trim_at = time.monotonic() + _TRIM_EVERY
            self._total = await asyncio.to_thread(self._trim)

    async def keep_index(self, packed: bytes, batch_id: str) -> str:
        return (await self._blobs.put("results", packed, [batch_id])).id

    @asynccontextmanager
    async def open(self, blob_id: str) -> AsyncIterator[Archived]:
        """The blob's bytes. Raises BlobMissing without a live blob, BlobCorrupt when they are damaged."""
        blob = await self._blobs.stat(blob_id)
        if blob is None:
            raise BlobMissing(blob_id)
        view = self._mapped(blob) if await asyncio.to_thread(self._has, blob) else None
        if view is None:
            await self._load(blob)
            view = self._mapped(blob)
        with view as archived:
            yield archived

    def _mapped(self, blob: Blob) -> contextlib.AbstractContextManager[Archived]:
        return viewed(self._directory / blob.id)

    def _has(self, blob: Blob) -> bool:
        """Whether the disk holds this very blob; a file nobody here wrote is read once to make sure."""
        path = self._directory / blob.id
        try:
            if path.stat().st_size != blob.length:
                return False
            os.utime(path)
            if blob.id not in self._trusted:
                with path.open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != blob.sha256:
                        return False
        except FileNotFoundError:
            return False
        self._trusted.add(blob.id)
        return True

    async def _load(self, blob: Blob) -> None:
        path = self._new_part()
        digest = hashlib.sha256()
        try:
            with await asyncio.to_thread(path.open, "wb") as file:
                async with aclosing(self._blobs.read(blob.id)) as pieces:
                    async for piece in pieces:
                        digest.update(piece)
                        await asyncio.to_thread(file.write, piece)
            if digest.hexdigest() != blob.sha256:
                raise BlobCorrupt(f"{blob.id} is not what was stored")
            await self.adopt(path, blob)
        finally:
            path.unlink(missing_ok=True)

    def _new_part(self) -> Path:
        return self._directory / f"{token_hex(12)}{_PART}"

    def _trim(self) -> int:
        """Remove what was used longest ago until the rest fits; whoever has it open keeps reading it.

        The bytes that are left.
        """
        found = []
        for entry in self._directory.iterdir():
            with contextlib.suppress(FileNotFoundError):
                state = entry.stat()
                found.append((state.st_mtime, state.st_size, entry))
        found.sort()
        total = sum(size for _, size, _ in found)
        abandoned = time.time() - _ABANDONED
        for used_at, size, entry in found[:-1]:
            unfinished = entry.suffix == _PART
            if used_at < abandoned if unfinished else total > self._max_total:
                entry.unlink(missing_ok=True)
                self._trusted.discard(entry.name)
                total -= size
        return total
