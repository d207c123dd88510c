"""Line indexes: fixed-width binary tables that say where each line's bytes are."""

import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import starmap
from typing import NamedTuple

_INPUT = struct.Struct("<IQIH")
_RESULT = struct.Struct("<IQIBB")
_LINE_AND_GROUP = struct.Struct("<I12xH")

INPUT_ENTRY_BYTES = _INPUT.size
RESULT_ENTRY_BYTES = _RESULT.size

SOURCE_OUTPUT = 0
SOURCE_ERROR = 1

FLAG_OK = 1
"""The answer is a success."""
FLAG_RETRYABLE = 2
"""The answer failed for a reason that says nothing about the request."""
FLAG_OVERSIZED = 4
"""The archived bytes are there but too large to be returned as a line."""


class InputEntry(NamedTuple):
    """Physical line number, offset and length in bytes in the input file (without newline), shard group."""

    line_no: int
    offset: int
    length: int
    group: int


class ResultEntry(NamedTuple):
    """Line number; offset and length in the archive named by `source`; FLAG_* bits."""

    line_no: int
    offset: int
    length: int
    source: int
    flags: int


def pack_input(entries: Iterable[tuple[int, int, int, int]]) -> bytes:
    return b"".join(starmap(_INPUT.pack, entries))


def unpack_input(raw: bytes | memoryview) -> Iterator[InputEntry]:
    return map(InputEntry._make, _INPUT.iter_unpack(raw))


def lines_and_groups(raw: bytes | memoryview) -> Iterator[tuple[int, int]]:
    """Line number and shard group of every input entry, several times as fast as whole entries."""
    return _LINE_AND_GROUP.iter_unpack(raw)


def pack_result(entries: Iterable[tuple[int, int, int, int, int]]) -> bytes:
    """Entries must come sorted by line number, each line at most once."""
    return b"".join(starmap(_RESULT.pack, entries))


def unpack_result(raw: bytes | memoryview) -> Iterator[ResultEntry]:
    return map(ResultEntry._make, _RESULT.iter_unpack(raw))


def results_between(raw: bytes | memoryview, first_line: int, last_line: int) -> bytes:
    """The packed entries with `first_line <= line_no <= last_line`, found by bisection."""
    view = memoryview(raw)
    count = len(view) // RESULT_ENTRY_BYTES
    numbers = _LineNumbers(view, count)
    start = bisect_left(numbers, first_line)
    stop = bisect_left(numbers, last_line + 1)
    return bytes(view[start * RESULT_ENTRY_BYTES : stop * RESULT_ENTRY_BYTES])


class _LineNumbers:
    """The first column of a result index, seen as a sequence so that `bisect` can search it."""

    def __init__(self, view: memoryview, count: int) -> None:
        self._view = view
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, position: int) -> int:
        start = position * RESULT_ENTRY_BYTES
        return int.from_bytes(self._view[start : start + 4], "little")
