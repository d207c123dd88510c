"""JSONL as batches read it: a newline byte ends a line and nothing else does, however the bytes come in."""

from collections.abc import Iterator
from typing import NamedTuple

MAX_LINE = 16 * 1024 * 1024
"""Bytes of the longest line that is kept; it bounds what reading a file can hold in memory."""

_BOM = b"\xef\xbb\xbf"


class Block(NamedTuple):
    """Consecutive lines without their newlines: the first one's number (from 1) and offset in the file.

    `oversized` stands for one line whose bytes were too many to keep; `lines` is empty then.
    """

    first_line: int
    offset: int
    lines: list[bytes]
    oversized: bool = False


class LineSplitter:
    """Cuts pieces of a file into blocks; takes linear time and holds no more than the longest line."""

    def __init__(self, max_line: int = MAX_LINE) -> None:
        self._max = max_line
        self._line = 1
        self._offset = 0
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._at_start = True

    def feed(self, piece: bytes) -> Iterator[Block]:
        """The lines that end in this piece."""
        first = piece.find(b"\n")
        if first < 0:
            self._hold(piece)
            return
        if self._held_bytes + first > self._max:
            self._hold(piece[:first])
            yield from self._close(newline=1)
            first += 1
        else:
            first = 0
        last = piece.rfind(b"\n")
        if first <= last:
            self._held.append(piece[first:last])
            self._held_bytes += last - first
            yield from self._close(newline=1)
        self._hold(piece[last + 1 :])

    def finish(self) -> Iterator[Block]:
        """The last line, when no newline ends it."""
        if self._held_bytes:
            yield from self._close(newline=0)

    def _hold(self, part: bytes) -> None:
        self._held_bytes += len(part)
        if self._held_bytes > self._max:
            # the line will be refused: how long it is, is all that is still needed
            self._held.clear()
        elif part:
            self._held.append(part)

    def _close(self, newline: int) -> Iterator[Block]:
        """Everything held becomes blocks."""
        size, data = self._held_bytes, b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        if size > len(data):
            yield self._advance([], size + newline, 1)
            return
        skipped = len(_BOM) if self._at_start and data.startswith(_BOM) else 0
        self._at_start = False
        self._offset += skipped
        lines = data[skipped:].split(b"\n") if skipped else data.split(b"\n")
        size += newline - skipped
        if size <= self._max:
            yield self._advance(lines, size, len(lines))
        else:
            yield from self._apart(lines, newline)

    def _apart(self, lines: list[bytes], newline: int) -> Iterator[Block]:
        """So many bytes may hide a line that is too long itself."""
        for line in lines:
            kept = [line] if len(line) <= self._max else []
            yield self._advance(kept, len(line) + newline, 1)

    def _advance(self, lines: list[bytes], size: int, count: int) -> Block:
        block = Block(self._line, self._offset, lines, oversized=not lines)
        self._line += count
        self._offset += size
        self._at_start = False
        return block
