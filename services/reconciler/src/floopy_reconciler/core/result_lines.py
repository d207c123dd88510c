"""Cuts a provider's results into lines as they arrive; in memory are one line and one block."""

from collections.abc import Iterator

import msgspec

MAX_RESULT_LINE = 16 * 1024 * 1024
"""A longer result could not be returned as a line of an output file nor kept in one document."""
_EDGE = 4096
"""Where an oversized line shows its custom_id: at its beginning or at its end, never in its middle."""
_BOM = b"\xef\xbb\xbf"


class PhysicalLine(msgspec.Struct, frozen=True, gc=False):
    """From `start` to `stop`; `closed`: its end is there.

    `raw` is None of an oversized line, of which there are only the `edges`, its first and its last bytes.
    """

    start: int
    stop: int
    closed: bool
    raw: bytes | None
    edges: tuple[bytes, ...] = ()


class LineCutter:
    """Takes the bytes of one file in order; only `\\n` ends a line."""

    def __init__(self) -> None:
        self._begun: bytes | None = b""
        """The first bytes while they may yet become a byte order mark; None from then on."""
        self._start = 0
        self._head = b""
        self._oversized = 0
        """Bytes of a line whose end has not come, or 0 while `_head` has all of them."""
        self._tail = b""

    def feed(self, block: bytes) -> Iterator[PhysicalLine]:
        """The lines that end in this block, without blank ones."""
        first, *others = self._behind_mark(block).split(b"\n")
        self._grow(first)
        if not others:
            return
        *whole, last = others
        line = self._cut(closed=True)
        if line is not None:
            yield line
        start = self._start
        for raw in whole:
            stop = start + len(raw)
            if len(raw) > MAX_RESULT_LINE:
                yield PhysicalLine(start, stop, True, None, (raw[:_EDGE], raw[-_EDGE:]))
            elif raw.strip():
                yield PhysicalLine(start, stop, True, raw)
            start = stop + 1
        self._start = start
        self._grow(last)

    def end(self) -> PhysicalLine | None:
        """What stands behind the last newline, unless it is blank."""
        self._grow(self._begun or b"")
        return self._cut(closed=False)

    def _behind_mark(self, block: bytes) -> bytes:
        if self._begun is None:
            return block
        block = self._begun + block
        if len(block) < len(_BOM) and _BOM.startswith(block):
            self._begun = block
            return b""
        self._begun = None
        self._start = len(_BOM) if block.startswith(_BOM) else 0
        return block[self._start :]

    def _grow(self, piece: bytes) -> None:
        if self._oversized:
            self._oversized += len(piece)
            self._tail = (self._tail + piece)[-_EDGE:]
            return
        self._head = self._head + piece if self._head else piece
        if len(self._head) > MAX_RESULT_LINE:
            self._oversized, self._tail = len(self._head), self._head[-_EDGE:]
            self._head = self._head[:_EDGE]

    def _cut(self, *, closed: bool) -> PhysicalLine | None:
        """The line so far; the next one begins behind its newline."""
        start, head, oversized = self._start, self._head, self._oversized
        stop = start + (oversized or len(head))
        self._start, self._head = stop + 1, b""
        if oversized:
            edges, self._oversized, self._tail = (head, self._tail), 0, b""
            return PhysicalLine(start, stop, closed, None, edges)
        return PhysicalLine(start, stop, closed, head) if head.strip() else None
