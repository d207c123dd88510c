"""Files that are read at random."""

import os

from floopy_common.domain.errors import BlobCorrupt


class StoredFile:
    """An open file, read at random. Not mapped: every page that is looked at would count as our memory."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size

    @property
    def path(self) -> str:
        """Of the open file, whatever becomes of its name."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

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
