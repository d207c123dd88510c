"""Joins a provider's results back to the lines of a shard, whatever is wrong with them."""

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from floopy_common.domain.errors import Invalid
from floopy_common.domain.index import FLAG_OK, FLAG_OVERSIZED, FLAG_RETRYABLE, ResultEntry
from floopy_common.domain.line import LineAnswer
from floopy_reconciler.ports import Archived, ResultFormat

MAX_RESULT_LINE = 16 * 1024 * 1024
"""A longer result could not be returned as a line of an output file nor kept in one document."""
_KEY_WINDOW = 4096
"""Where an oversized line shows its custom_id: at its beginning or at its end, never in its middle."""
_BLOCK = 1024 * 1024
_BOM = b"\xef\xbb\xbf"
_NEVER_RUN = frozenset({"batch_expired", "batch_cancelled", "request_cancelled"})


@dataclass(frozen=True)
class Expected:
    """What the results of one provider batch may contain: lines of this shard under this nonce."""

    nonce: str
    lines: Set[int]
    keep_never_run: bool = True
    """False: what the provider never ran is left to the shard's own ending to explain."""


@dataclass
class Quarantine:
    """Result lines that never become an answer; their bytes stay in the archive."""

    unknown: int = 0
    duplicate: int = 0
    malformed: int = 0
    oversized: int = 0


@dataclass
class Joined:
    """`entries` by line number; `present` counts lines the provider accounted for, in whatever state."""

    entries: dict[int, ResultEntry] = field(default_factory=dict)
    quarantined: Quarantine = field(default_factory=Quarantine)
    present: int = 0
    truncated: bool = False

    @property
    def all_foreign(self) -> bool:
        """Every line that can be read belongs to somebody else's batch."""
        return self.quarantined.unknown > 0 and self.present == self.quarantined.malformed

    def in_order(self) -> list[ResultEntry]:
        return [self.entries[line] for line in sorted(self.entries)]

    def retryable(self) -> list[int]:
        """Numbers of the lines that failed for a reason that says nothing about them."""
        return sorted(line for line, entry in self.entries.items() if entry.flags & FLAG_RETRYABLE)


class PhysicalLine(NamedTuple):
    """From `start` to `stop`; `closed`: its end is there. `raw` is None of an oversized line."""

    start: int
    stop: int
    closed: bool
    raw: bytes | None


class _Unreadable(Exception):  # noqa: N818 - says what happened
    """A result line without a custom_id or an answer."""


def join_results(
    sources: Sequence[tuple[int, Archived]], expected: Expected, result_format: ResultFormat
) -> Joined:
    """Read every source once, in order; memory grows with the number of lines, not with their bytes."""
    joined = Joined()
    left_out: set[int] = set()
    for source, data in sources:
        for line in physical_lines(data):
            try:
                entry = _read_line(data, line, source, expected, result_format)
            except _Unreadable:
                if line.closed:
                    joined.quarantined.malformed += 1
                    joined.present += 1
                else:
                    joined.truncated = True
                continue
            _admit(joined, entry, left_out)
    return joined


def physical_lines(data: Archived) -> Iterator[PhysicalLine]:
    """Every line that is not blank; only `\\n` ends a line. In memory are one line and one block."""
    size = len(data)
    start = len(_BOM) if size >= len(_BOM) and data.read(0, len(_BOM)) == _BOM else 0
    head, dropped = b"", 0  # the line whose end has not come yet: its bytes, or how many there were
    for at in range(start, size, _BLOCK):
        *closed, rest = data.read(at, min(_BLOCK, size - at)).split(b"\n")
        for line in closed:
            stop = start + dropped + len(head) + len(line)
            raw = None if stop - start > MAX_RESULT_LINE else head + line
            if raw is None or raw.strip():
                yield PhysicalLine(start, stop, True, raw)
            start, head, dropped = stop + 1, b"", 0
        head += rest
        if dropped or len(head) > MAX_RESULT_LINE:
            head, dropped = b"", dropped + len(head)
    if dropped or head.strip():
        yield PhysicalLine(start, size, False, None if dropped else head)


def _read_line(
    data: Archived, line: PhysicalLine, source: int, expected: Expected, result_format: ResultFormat
) -> ResultEntry | None:
    """The line's entry; None for a foreign line. An entry with `length` 0 is a line that never ran."""
    start, stop, _, raw = line
    if raw is None:
        number = _find_key(data, start, stop, expected)
        return None if number is None else ResultEntry(number, start, stop - start, source, FLAG_OVERSIZED)
    key = result_format.read_key(raw)
    if key is None:
        raise _Unreadable
    number = _line_of(key, expected)
    if number is None:
        return None
    try:
        answer = result_format.parse_result(raw)
    except Invalid as error:
        raise _Unreadable from error
    if not expected.keep_never_run and _never_ran(answer):
        return ResultEntry(number, start, 0, source, 0)
    flags = FLAG_OK if answer.ok else FLAG_RETRYABLE if answer.retryable else 0
    return ResultEntry(number, start, stop - start, source, flags)


def _line_of(key: str, expected: Expected) -> int | None:
    nonce, _, digits = key.partition("-")
    if nonce != expected.nonce or not digits.isascii() or not digits.isdigit() or len(digits) > 10:
        return None
    number = int(digits)
    return number if number in expected.lines and str(number) == digits else None


def _find_key(data: Archived, start: int, stop: int, expected: Expected) -> int | None:
    pattern = re.compile(rb'"custom_id"\s*:\s*"(%b-[0-9]{1,10})"' % re.escape(expected.nonce.encode()))
    for at in (start, stop - _KEY_WINDOW):
        found = pattern.search(data.read(at, _KEY_WINDOW))
        if found is not None:
            return _line_of(found.group(1).decode(), expected)
    return None


class _ErrorCode(msgspec.Struct):
    code: str | None = None


_decode_error = msgspec.json.Decoder(_ErrorCode).decode


def _never_ran(answer: LineAnswer) -> bool:
    if answer.status_code is not None or answer.error is None:
        return False
    try:
        return _decode_error(answer.error).code in _NEVER_RUN
    except msgspec.DecodeError:
        return False


def _admit(joined: Joined, entry: ResultEntry | None, left_out: set[int]) -> None:
    """The first answer to a line is kept, unless a later file has a success where the first has none."""
    if entry is None:
        joined.quarantined.unknown += 1
        return
    kept = joined.entries.get(entry.line_no)
    if kept is not None or entry.line_no in left_out:
        joined.quarantined.duplicate += 1
        earlier_file = kept is None or kept.source != entry.source
        if not (earlier_file and entry.flags & FLAG_OK and not (kept and kept.flags & FLAG_OK)):
            return
    else:
        joined.present += 1
    if entry.flags & FLAG_OVERSIZED:
        joined.quarantined.oversized += 1
    if entry.length:
        joined.entries[entry.line_no] = entry
    else:
        left_out.add(entry.line_no)
