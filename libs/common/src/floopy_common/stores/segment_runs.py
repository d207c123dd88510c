"""What a delivery brings of each segment, and what a process remembers of segments that are on their way."""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from floopy_common.chassis.consumer import LineRecord
from floopy_common.chassis.mongo import Document, Filter
from floopy_common.domain.ids import line_id
from floopy_common.events.lines import LineCompleted, SegmentRef

_ARRIVING: Final = 1_000
"""Segments on their way to one process: some for each partition, were it not for those that never end."""
_OPEN_FOR: Final = 5.0
"""Seconds a batch whose audit was open needs no second look."""
_SMALL: Final = 100
"""Lines of a segment that is inserted without asking what is there: refused rows cost more than asking."""

SEGMENTS_AT_ONCE: Final = 100
"""Segments of one query: each is a range of keys that the server plans for."""

_Key = tuple[str, int]


class Segment(Protocol):
    """A segment of a batch, whoever knows it."""

    @property
    def batch_id(self) -> str: ...

    @property
    def segment(self) -> SegmentRef: ...


class Tally(Protocol):
    """What the rows of one segment add up to, for a sink that tells of segments."""

    def add(self, rows: Sequence[Document]) -> None:
        """Count rows that have just been stored, none of which was there before."""
        ...


@dataclass(slots=True)
class SegmentRun:
    """What one delivery brought of one segment, each line once, by line id."""

    org_id: str
    batch_id: str
    segments: int
    segment: SegmentRef
    records: dict[str, LineRecord] = field(default_factory=dict)
    first_line: int = 0
    last_line: int = 0
    fresh: bool = False
    """Nothing of the segment was there when its first line came, and all since has come in order."""
    settled: bool = False
    """Every delivered line has its row, and all has been done that comes before its segment's receipt."""
    tally: Tally | None = None
    """Of all rows of the segment, where this process has stored each of them; else they have to be read."""

    def add(self, record: LineRecord) -> None:
        number = record.line.line_no
        # measured: min() and max() would double what a record costs here
        if not self.records:
            self.first_line = self.last_line = number
        elif number > self.last_line:
            self.last_line = number
        elif number < self.first_line:
            self.first_line = number
        self.records[record.line.line_id] = record

    @property
    def key(self) -> _Key:
        return self.batch_id, self.segment.no

    @property
    def is_complete(self) -> bool:
        """Whether it has the segment's last line, which is the last of every emission."""
        return self.last_line == self.segment.last_line

    @property
    def is_small_and_whole(self) -> bool:
        """Whether all of a short segment came at once: what is there shows when it is inserted."""
        return len(self.records) == self.segment.lines <= _SMALL

    @property
    def whole(self) -> Filter:
        """Matches the rows of the whole segment."""
        return _keys(self.batch_id, self.segment.first_line, self.segment.last_line)

    @property
    def delivered(self) -> Filter:
        """Matches the rows from the first to the last line that was delivered."""
        return _keys(self.batch_id, self.first_line, self.last_line)


def runs_of(records: Sequence[LineRecord]) -> list[SegmentRun]:
    """The delivery by segment; of a line that comes twice the later record counts."""
    runs: dict[_Key, SegmentRun] = {}
    run: SegmentRun | None = None
    for record in records:
        line = record.line
        # most records follow another of their segment
        if run is None or line.segment.no != run.segment.no or line.batch_id != run.batch_id:
            key = (line.batch_id, line.segment.no)
            run = runs.get(key)
            if run is None:
                run = runs[key] = SegmentRun(line.org_id, line.batch_id, line.segments, line.segment)
        run.add(record)
    return list(runs.values())


def rows_of(segments: Sequence[Segment]) -> Filter:
    """Matches the rows of these segments, each a range of keys."""
    keys = [_keys(one.batch_id, one.segment.first_line, one.segment.last_line) for one in segments]
    return keys[0] if len(keys) == 1 else {"$or": keys}


def _keys(batch_id: str, first_line: int, last_line: int) -> Filter:
    return {"_id": {"$gte": line_id(batch_id, first_line), "$lte": line_id(batch_id, last_line)}}


@dataclass(slots=True)
class _Arrival:
    """How far a fresh segment has come, and how many of its rows this process has stored itself."""

    last_line: int
    stored: int = 0
    tally: Tally | None = None


class Arrivals:
    """Segments on their way to this process: how far each has come, and when its batch was seen open.

    What is remembered only saves look-ups: a row that is there against all appearances is found when it is
    inserted, and then nothing is remembered of its segment any more.
    """

    def __init__(self, tally: Callable[[], Tally] | None = None) -> None:
        """`tally` makes what counts the rows of a segment; without it nobody counts them."""
        self._tally = tally
        self._arriving: OrderedDict[_Key, _Arrival] = OrderedDict()
        self._open: OrderedDict[str, float] = OrderedDict()

    def goes_on(self, run: SegmentRun) -> bool:
        """Whether the run is what comes next of a segment that has been fresh so far."""
        arrival = self._arriving.get(run.key)
        return arrival is not None and run.first_line > arrival.last_line

    def arrived(self, run: SegmentRun) -> None:
        """Remember how far a fresh segment has come, forget one that is not."""
        if not run.fresh:
            self._arriving.pop(run.key, None)
        elif self.goes_on(run):
            self._arriving[run.key].last_line = run.last_line
            self._arriving.move_to_end(run.key)
        else:
            self._arriving.pop(run.key, None)
            self._arriving[run.key] = _Arrival(run.last_line, tally=self._tally() if self._tally else None)
            if len(self._arriving) > _ARRIVING:
                self._arriving.popitem(last=False)

    def stored(self, rows: Sequence[tuple[LineRecord, Document]]) -> None:
        """These rows of lines have been inserted, none of which was there."""
        start = 0
        key: _Key | None = None
        for at, (record, _) in enumerate(rows):
            line = record.line
            if key is None or line.segment.no != key[1] or line.batch_id != key[0]:
                self._counted(key, rows[start:at])
                start, key = at, (line.batch_id, line.segment.no)
        self._counted(key, rows[start:])

    def _counted(self, key: _Key | None, rows: Sequence[tuple[LineRecord, Document]]) -> None:
        arrival = None if key is None else self._arriving.get(key)
        if arrival is not None:
            arrival.stored += len(rows)
            if arrival.tally is not None:
                arrival.tally.add([row for _, row in rows])

    def has_come_to(self, run: SegmentRun) -> bool:
        """Whether the fresh segment is where the run leaves it."""
        arrival = self._arriving.get(run.key)
        return arrival is not None and arrival.last_line == run.last_line

    def is_stored(self, run: SegmentRun) -> bool:
        """Whether this process itself has inserted each row of the segment, and found none there before.

        Then the run gets the segment's tally.
        """
        arrival = self._arriving.get(run.key)
        if (
            arrival is None
            or arrival.last_line != run.segment.last_line
            or arrival.stored != run.segment.lines
        ):
            return False
        run.tally = arrival.tally
        return True

    def ended(self, run: SegmentRun) -> None:
        """The segment has its receipt."""
        self._arriving.pop(run.key, None)

    def forget(self, lines: Iterable[LineCompleted]) -> None:
        """The rows of these lines are not what was inserted: their segments have to be counted."""
        for line in lines:
            self._arriving.pop((line.batch_id, line.segment.no), None)

    def to_be_seen(self, batch_ids: Collection[str]) -> list[str]:
        """The batches that have not been seen open lately, in order."""
        since = time.monotonic() - _OPEN_FOR
        return sorted(batch_id for batch_id in batch_ids if self._open.get(batch_id, since) <= since)

    def look_again(self, batch_id: str) -> None:
        """What was seen of the batch holds no longer: only of what goes on is it improbable that it ends."""
        self._open.pop(batch_id, None)

    def seen_open(self, batch_ids: Collection[str]) -> None:
        for batch_id in batch_ids:
            self._open[batch_id] = time.monotonic()
            self._open.move_to_end(batch_id)
        while len(self._open) > _ARRIVING:
            self._open.popitem(last=False)
