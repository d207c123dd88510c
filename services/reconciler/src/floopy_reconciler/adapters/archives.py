"""Archived results on this machine's disk: a cache in front of the blobs that may be lost at any time."""

import asyncio
import contextlib
import hashlib
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from floopy_common.domain.errors import BlobCorrupt, BlobMissing
from floopy_common.providers.port import ResultStream, Unavailable
from floopy_common.stores.blobs import Blob, BlobStore
from floopy_reconciler.errors import ResultsTooLarge
from floopy_reconciler.metrics import DOWNLOAD_SECONDS, DOWNLOADED_BYTES
from floopy_reconciler.ports import Archived

_log = logging.getLogger(__name__)

_PIECE = 1024 * 1024
"""Written and read at once, off the event loop."""
_PART = ".part"
_ABANDONED = 3_600.0
"""Seconds after which a file that is still being written belongs to a process that died."""


class StoredFile:
    """An open file, read at random. Not mapped: every page that is looked at would count as our memory."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size

    def __len__(self) -> int:
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """Raises BlobCorrupt when the file ends before that."""
        found = os.pread(self._descriptor, length, offset)
        while len(found) < length:
            more = os.pread(self._descriptor, length - len(found), offset + len(found))
            if not more:
                raise BlobCorrupt(f"{length} bytes at {offset} of a file of {self._size}")
            found += more
        return found


class ScratchArchives:
    """Files named after their blobs; `max_result` and `max_total` in bytes."""

    def __init__(self, directory: Path, blobs: BlobStore, *, max_result: int, max_total: int) -> None:
        self._directory = directory
        self._blobs = blobs
        self._max_result = max_result
        self._max_total = max_total
        self._trusted: set[str] = set()
        directory.mkdir(parents=True, exist_ok=True)

    async def receive(self, stream: ResultStream) -> Path:
        """Write a download to disk; Unavailable when its length is not as announced, or ResultsTooLarge."""
        started = time.monotonic()
        path = self._new_part()
        try:
            size = await self._write(path, stream)
        except BaseException:
            self.forget(path)
            raise
        DOWNLOADED_BYTES.inc(size)
        DOWNLOAD_SECONDS.observe(time.monotonic() - started)
        return path

    async def _write(self, path: Path, stream: ResultStream) -> int:
        size = 0
        with await asyncio.to_thread(path.open, "wb") as file:
            pending: list[bytes] = []
            held = 0
            async for chunk in stream.chunks:
                pending.append(chunk)
                held += len(chunk)
                if held >= _PIECE:
                    size, held = size + held, 0
                    await self._flush(file, pending, size)
            size += held
            await self._flush(file, pending, size)
        if stream.content_length is not None and size != stream.content_length:
            raise Unavailable(f"{size} of {stream.content_length} bytes came")
        return size

    async def _flush(self, file: BinaryIO, pending: list[bytes], size: int) -> None:
        if size > self._max_result:
            raise ResultsTooLarge(f"more than {self._max_result} bytes")
        await asyncio.to_thread(file.writelines, pending)
        pending.clear()

    @contextmanager
    def view(self, path: Path) -> Iterator[Archived]:
        """The file's bytes, each read when it is asked for."""
        with path.open("rb", buffering=0) as file:
            yield StoredFile(file.fileno())

    async def keep(self, path: Path, batch_id: str) -> str:
        """Store the file as a blob; it is then found under the blob's id."""
        async with self._blobs.writer("archive", [batch_id]) as writer:
            with await asyncio.to_thread(path.open, "rb") as file:
                while piece := await asyncio.to_thread(file.read, _PIECE):
                    await writer.write(piece)
        self._adopt(path, writer.blob.id)
        await asyncio.to_thread(self._trim)
        return writer.blob.id

    async def keep_index(self, packed: bytes, batch_id: str) -> str:
        return (await self._blobs.put("results", packed, [batch_id])).id

    def forget(self, path: Path) -> None:
        """Remove a scratch file; already gone is fine."""
        path.unlink(missing_ok=True)

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
        return self.view(self._directory / blob.id)

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
            self._adopt(path, blob.id)
        finally:
            self.forget(path)
        await asyncio.to_thread(self._trim)

    def _new_part(self) -> Path:
        return self._directory / f"{token_hex(12)}{_PART}"

    def _adopt(self, path: Path, blob_id: str) -> None:
        path.replace(self._directory / blob_id)
        self._trusted.add(blob_id)

    def _trim(self) -> None:
        """Remove what was used longest ago until the rest fits; whoever has it open keeps reading it."""
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
