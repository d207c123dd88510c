"""Files that grow line by line and survive a kill in the middle of it."""

import os
from pathlib import Path


class Appender:
    """Writes at the recorded end of a file, so what a killed run had left behind it is overwritten."""

    def __init__(self, path: Path, end: int) -> None:
        self._fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
        os.ftruncate(self._fd, end)
        self.end = end
        self._parts: list[bytes] = []

    def add(self, line: bytes) -> None:
        self._parts.append(line)

    def flush(self) -> None:
        block = memoryview(b"".join(self._parts))
        self._parts.clear()
        while block:
            written = os.pwrite(self._fd, block, self.end)
            self.end += written
            block = block[written:]

    def close(self) -> None:
        os.close(self._fd)
