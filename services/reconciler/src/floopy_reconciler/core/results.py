"""Joins a provider's results back to the lines of a shard, whatever is wrong with them."""

import re
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property

import msgspec

from floopy_common.domain.errors import Invalid
from floopy_common.domain.index import FLAG_OK, FLAG_OVERSIZED, FLAG_RETRYABLE, ResultEntry
from floopy_common.domain.line import LineAnswer
from floopy_reconciler.core.result_lines import LineCutter, PhysicalLine
from floopy_reconciler.ports import ResultFormat

_MARGIN = 100
"""Calls that rendering may be deeper in than this: Python bounds them together with the nesting of JSON it
decodes, and a line that is an answer here must be one there."""
_NEVER_RUN = frozenset({"batch_expired", "batch_cancelled", "request_cancelled"})


@dataclass(frozen=True)
class Expected:
    """What the results of one provider batch may contain: lines of this shard under this nonce."""

    nonce: str
    lines: Set[int]

    @cached_property
    def prefix(self) -> str:
        """What stands before the line number in every custom_id."""
        return f"{self.nonce}-"


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


class _Unreadable(Exception):  # noqa: N818 - says what happened
    """A result line without a custom_id or an answer."""


class ResultScan:
    """Reads one file of results as it arrives; memory grows with the number of lines, not with their bytes.

    `length` in bytes; `entries` in the file's order; `unknown` counts lines of somebody else's batch.
    """

    def __init__(self, source: int, expected: Expected, result_format: ResultFormat) -> None:
        self.source = source
        self.length = 0
        self.entries: list[ResultEntry] = []
        self.never_run: set[int] = set()
        """Places in `entries` of lines the provider lists only to say that it did not get to them."""
        self.unknown = 0
        self.malformed = 0
        self.truncated = False
        self._expected = expected
        self._format = result_format
        self._lines = LineCutter()

    def feed(self, block: bytes) -> None:
        """The file's next bytes."""
        self.length += len(block)
        self._take_all(self._lines.feed(block))

    def end(self) -> None:
        """There are no more bytes; once."""
        line = self._lines.end()
        if line is not None:
            self._take_all([line])

    def _take_all(self, lines: Iterable[PhysicalLine], margin: int = _MARGIN) -> None:
        """So many calls further down, where less nesting is left to what decodes the lines."""
        if margin:
            self._take_all(lines, margin - 1)
            return
        for line in lines:
            self._take(line)

    def _take(self, line: PhysicalLine) -> None:
        try:
            entry = self._read(line)
        except _Unreadable:
            self.malformed += line.closed
            self.truncated = not line.closed
            return
        if entry is None:
            self.unknown += 1
        else:
            self.entries.append(entry)

    def _read(self, line: PhysicalLine) -> ResultEntry | None:
        """The line's entry; None for a foreign line."""
        raw = line.raw
        if raw is None:
            number, flags = _find_key(line.edges, self._expected), FLAG_OVERSIZED
        elif (key := self._format.read_success(raw)) is not None:
            number, flags = _line_of(key, self._expected), FLAG_OK
        else:
            return self._read_in_full(line.start, raw)
        if number is None:
            return None
        return ResultEntry(number, line.start, line.stop - line.start, self.source, flags)

    def _read_in_full(self, start: int, raw: bytes) -> ResultEntry | None:
        key = self._format.read_key(raw)
        if key is None:
            raise _Unreadable
        number = _line_of(key, self._expected)
        if number is None:
            return None
        try:
            answer = self._format.parse_result(raw)
        except Invalid as error:
            raise _Unreadable from error
        if _never_ran(answer):
            self.never_run.add(len(self.entries))
        flags = FLAG_OK if answer.ok else FLAG_RETRYABLE if answer.retryable else 0
        return ResultEntry(number, start, len(raw), self.source, flags)


def join_results(scans: Iterable[ResultScan], *, keep_never_run: bool = True) -> Joined:
    """What the files, fed to their ends and in order of precedence, say of the lines.

    Without `keep_never_run` what the provider never ran is left to the shard's own ending to explain.
    """
    joined = Joined()
    left_out: set[int] = set()
    for scan in scans:
        scan.end()
        joined.quarantined.unknown += scan.unknown
        joined.quarantined.malformed += scan.malformed
        joined.present += scan.malformed
        joined.truncated = joined.truncated or scan.truncated
        dropped: Set[int] = frozenset() if keep_never_run else scan.never_run
        if not joined.entries and not left_out and not dropped and _admit_all(joined, scan.entries):
            continue
        for place, entry in enumerate(scan.entries):
            _admit(joined, entry._replace(length=0) if place in dropped else entry, left_out)
    return joined


def _line_of(key: str, expected: Expected) -> int | None:
    prefix = expected.prefix
    digits = key[len(prefix) :]
    if not key.startswith(prefix) or not digits.isascii() or not digits.isdigit() or len(digits) > 10:
        return None
    number = int(digits)
    return number if number in expected.lines and digits[0] != "0" else None


def _find_key(edges: Iterable[bytes], expected: Expected) -> int | None:
    pattern = re.compile(rb'"custom_id"\s*:\s*"(%b-[0-9]{1,10})"' % re.escape(expected.nonce.encode()))
    for edge in edges:
        found = pattern.search(edge)
        if found is not None:
            return _line_of(found[1].decode(), expected)
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


def _admit_all(joined: Joined, entries: Sequence[ResultEntry]) -> bool:
    """The first file's, where each line is in it once, as in nearly every one; False of another."""
    by_line = {entry.line_no: entry for entry in entries}
    if len(by_line) < len(entries):
        return False
    joined.entries = by_line
    joined.present += len(by_line)
    joined.quarantined.oversized += sum(1 for entry in entries if entry.flags & FLAG_OVERSIZED)
    return True


def _admit(joined: Joined, entry: ResultEntry, left_out: set[int]) -> None:
    """The first answer to a line is kept, unless a later file has a success where the first has none.

    An entry of no length is a line that is there but has no answer.
    """
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
