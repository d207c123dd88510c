"""Files that messages refer to by id: found when a batch is planned, read again whenever it is translated."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import aclosing

from floopy_common.domain.errors import BlobCorrupt
from floopy_common.providers.anthropic.policy import StoredFile
from floopy_submitter.core.pinning import PinnedFile
from floopy_submitter.ports import InputReader, OwnedFiles, PinnedBlobs

MAX_FILES = 1_000
"""Files one batch may refer to; each is kept, and found again, for as long as the batch is."""
_REMEMBERED = 32 * 1024 * 1024
"""Bytes of files a process holds, since lines often ask about the same few."""


class StoredFiles:
    """`limit`: the most bytes that the files of one request may have together."""

    def __init__(self, files: OwnedFiles, blobs: PinnedBlobs, reader: InputReader, limit: int) -> None:
        self._files = files
        self._blobs = blobs
        self._reader = reader
        self._limit = limit
        self._held: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    async def find(self, org_id: str, batch_id: str, file_id: str) -> PinnedFile | None:
        """The organisation's file, kept for the batch from now on; None when there is none."""
        file = await self._files.get_owned(org_id, file_id)
        if file is None:
            return None
        if not await self._blobs.pin_all((part["blob"] for part in file["ranges"]), batch_id):
            return None
        return PinnedFile(
            file["filename"],
            file["bytes"],
            [{name: part[name] for name in ("blob", "offset", "length")} for part in file["ranges"]],
        )

    async def load(
        self, known: Mapping[str, PinnedFile | None], wanted: Iterable[str]
    ) -> dict[str, StoredFile]:
        """The content of those of the files that exist. Raises BlobMissing or BlobCorrupt."""
        files = {file_id: file for file_id in wanted if (file := known.get(file_id)) is not None}
        if sum(file.bytes for file in files.values()) > self._limit:
            return {
                file_id: StoredFile(b"", file.filename, limit=self._limit) for file_id, file in files.items()
            }
        return {
            file_id: StoredFile(await self._read(file_id, file), file.filename)
            for file_id, file in files.items()
        }

    async def _read(self, file_id: str, file: PinnedFile) -> bytes:
        content = self._held.get(file_id)
        if content is not None:
            self._held.move_to_end(file_id)
            return content
        async with aclosing(self._reader.read_ranges(file.ranges)) as pieces:
            content = b"".join([piece async for piece in pieces])
        if len(content) != file.bytes:
            raise BlobCorrupt(f"{file_id} has {len(content)} bytes, not {file.bytes}")
        self._remember(file_id, content)
        return content

    def _remember(self, file_id: str, content: bytes) -> None:
        if file_id in self._held:  # another job has read it meanwhile
            return
        self._held[file_id] = content
        self._size += len(content)
        while self._size > _REMEMBERED and self._held:
            _, dropped = self._held.popitem(last=False)
            self._size -= len(dropped)
