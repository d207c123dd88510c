"""How a sink stores lines and confirms segments: the same for every sink, whatever its rows are.

    runs = runs_of(records)
    wanted = await confirming.wanted(runs)
    await confirming.store([(one, row(one.record.line)) for one in wanted])
    await confirming.confirm(runs)

Every step may be repeated, interrupted, or done twice at once; the offset is committed after the last.

A segment usually comes once, in order, to one process. While it does, that process neither looks for rows
that are there already nor counts those that are, before the last line of the segment: see `_Arrivals`.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

from prometheus_client import Counter

from floopy_common.chassis.consumer import LineRecord
from floopy_common.chassis.loop import in_pieces
from floopy_common.chassis.mongo import DatabaseError, Document, Filter, Mongo
from floopy_common.domain.ids import line_id
from floopy_common.domain.segment import Sink
from floopy_common.events.lines import LineCompleted, SegmentRef
from floopy_common.stores.receipts import ReceiptStore

_T = TypeVar("_T")

PARKED = "parked"
"""Status of a row that stands for a line the sink could not take."""

CONFIRMED = Counter("floopy_segments_confirmed_total", "Receipts written or found in place.", ["sink"])
REPEATED = Counter("floopy_lines_repeated_total", "Delivered lines that had their row already.", ["sink"])

_DUPLICATE_KEY = 11000
_PASSING = frozenset(
    {
        *(6, 7, 13, 24, 46, 50, 89, 91, 112, 189, 262),
        *(8000, 9001, 10058, 10107, 11600, 11601, 11602, 13435, 13436, 14031),
    }
)
"""Codes that say nothing about the document: the server's state, a full disk, a time limit, a conflict."""
_WHOLE = frozenset({22, 10334})
"""Codes with which the server refuses a whole insert for one document: no BSON, too large."""
_AT_ONCE = 4
"""Segments looked after at the same time; measured: more in flight gains nothing."""
_ARRIVING: Final = 1_000
"""Segments on their way to one process: some for each partition, were it not for those that never end."""
_OPEN_FOR: Final = 5.0
"""Seconds a batch whose audit was open needs no second look."""

Park = Callable[[Sequence[tuple[LineRecord, str]]], Awaitable[None]]
"""Makes dead letters of lines, with the reasons; durable when it returns."""


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

    def add(self, record: LineRecord) -> None:
        number = record.line.line_no
        self.first_line = min(self.first_line, number) if self.records else number
        self.last_line = max(self.last_line, number)
        self.records[record.line.line_id] = record

    @property
    def is_complete(self) -> bool:
        """Whether it has the segment's last line, which is the last of every emission."""
        return self.last_line == self.segment.last_line

    @property
    def whole(self) -> Filter:
        """Matches the rows of the whole segment."""
        first = line_id(self.batch_id, self.segment.first_line)
        return {"_id": {"$gte": first, "$lte": line_id(self.batch_id, self.segment.last_line)}}

    @property
    def delivered(self) -> Filter:
        """Matches the rows from the first to the last line that was delivered."""
        first = line_id(self.batch_id, self.first_line)
        return {"_id": {"$gte": first, "$lte": line_id(self.batch_id, self.last_line)}}


class Wanted(NamedTuple):
    """A line that lacks a row, or has one that only says `parked`."""

    record: LineRecord
    parked: bool


Hook = Callable[[SegmentRun], Awaitable[None]]


def runs_of(records: Sequence[LineRecord]) -> list[SegmentRun]:
    """The delivery by segment; of a line that comes twice the later record counts."""
    runs: dict[tuple[str, int], SegmentRun] = {}
    for record in records:
        line = record.line
        key = (line.batch_id, line.segment.no)
        run = runs.get(key)
        if run is None:
            run = runs[key] = SegmentRun(line.org_id, line.batch_id, line.segments, line.segment)
        run.add(record)
    return list(runs.values())


class _Arrivals:
    """Segments on their way to this process: how far each has come, and when its batch was seen open.

    What is remembered only saves look-ups. Rows that were there against all appearances are found when they
    are inserted, and a segment is counted whenever its last line or anything unexpected comes.
    """

    def __init__(self) -> None:
        self._reached: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._open: OrderedDict[str, float] = OrderedDict()

    def goes_on(self, run: SegmentRun) -> bool:
        """Whether the run is what comes next of a segment that has been fresh so far."""
        reached = self._reached.get(_key(run))
        return reached is not None and run.first_line > reached

    def arrived(self, run: SegmentRun) -> None:
        """Remember how far a fresh segment has come, forget one that is not or has ended."""
        if run.fresh and not run.is_complete:
            self._reached[_key(run)] = run.last_line
            self._reached.move_to_end(_key(run))
            if len(self._reached) > _ARRIVING:
                self._reached.popitem(last=False)
        else:
            self._reached.pop(_key(run), None)

    def has_come_to(self, run: SegmentRun) -> bool:
        """Whether the fresh segment is where the run leaves it."""
        return self._reached.get(_key(run)) == run.last_line

    def forget(self, line: LineCompleted) -> None:
        """The line's row was there before the line: its segment has not been fresh."""
        self._reached.pop((line.batch_id, line.segment.no), None)

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


def _key(run: SegmentRun) -> tuple[str, int]:
    return run.batch_id, run.segment.no


class Confirming:
    """One sink's rows and receipts.

    `collection` holds the rows, keyed by line id. `before_receipt` is called with every complete segment
    before its receipt is written, `after_receipt` after. `hit` gets the names `<sink>.after_dead_letter`,
    `<sink>.after_insert` and `<sink>.after_receipt`.
    """

    def __init__(
        self,
        mongo: Mongo,
        sink: Sink,
        collection: str,
        *,
        park: Park,
        hit: Callable[[str], None],
        before_receipt: Hook | None = None,
        after_receipt: Hook | None = None,
    ) -> None:
        self._rows = mongo.collection(collection)
        self._batches = mongo.collection("batches")
        self._receipts = ReceiptStore(mongo)
        self._sink = sink
        self._park = park
        self._hit = hit
        self._before_receipt = before_receipt
        self._after_receipt = after_receipt
        self._arrivals = _Arrivals()

    async def take(self, records: Sequence[LineRecord], row: Callable[[LineCompleted], Document]) -> None:
        """The whole step for a sink whose rows follow from the events alone."""
        runs = runs_of(records)
        wanted = await self.wanted(runs)
        rows: list[tuple[Wanted, Document]] = []
        async for piece in in_pieces(wanted):
            rows += [(one, row(one.record.line)) for one in piece]
        await self.store(rows)
        await self.confirm(runs)

    async def wanted(self, runs: Sequence[SegmentRun]) -> list[Wanted]:
        """The lines that are to be stored, in the order they came.

        A batch whose audit is closed takes no rows any more, so that what retention has removed does not
        come back with a late repeat. The one who closes it must do so before it removes rows.
        """
        found = await _each(runs, self._wanted)
        wanted = [one for part in found for one in part]
        REPEATED.labels(self._sink).inc(sum(len(run.records) for run in runs) - len(wanted))
        if not wanted:
            return []
        closed = await self._closed({one.record.line.batch_id for one in wanted})
        return [one for one in wanted if one.record.line.batch_id not in closed]

    async def store(self, rows: Sequence[tuple[Wanted, Document]]) -> set[str]:
        """Store each line's row, or a parked one and a dead letter where the row can never be stored.

        The ids of the lines whose row is now certainly as given; others may have been there with another.
        """
        fresh = [(one.record, row) for one, row in rows if not one.parked]
        stored, refused = await self._insert(fresh)
        parked = {row["_id"] for one, row in rows if one.parked}
        if len(stored) + len(refused) < len(fresh):
            there = [record for record, row in fresh if row["_id"] not in stored]
            for record in there:
                self._arrivals.forget(record.line)
            parked |= await self._parked(there)
        for one, row in rows:
            if row["_id"] in parked and (reason := await self._replace(row)) is not None:
                refused.append((one.record, reason))
        if refused:
            await self._park(refused)
            self._hit(f"{self._sink}.after_dead_letter")
            # of a line that not even this can be said of, the dead letter is all there will be
            await self._insert([(record, parked_row(record.line)) for record, _ in refused])
        self._hit(f"{self._sink}.after_insert")
        return stored

    async def confirm(self, runs: Sequence[SegmentRun]) -> None:
        """Write the receipt of every touched segment that is complete."""
        await _each(runs, self._confirm)

    async def _wanted(self, run: SegmentRun) -> list[Wanted]:
        run.fresh = self._arrivals.goes_on(run)
        there: set[str] = set()
        if not run.fresh:
            self._arrivals.look_again(run.batch_id)
            begins = run.first_line == run.segment.first_line
            # covered by the index on _id: 1.5 us a row that is there, nothing for a first delivery
            found = await self._rows.find_all(run.whole if begins else run.delivered, {"_id": 1})
            run.fresh = begins and not found
            there = {row["_id"] for row in found}
        self._arrivals.arrived(run)
        if not there:
            return [Wanted(record, parked=False) for record in run.records.values()]
        parked = await self._parked(list(run.records.values()))
        return [
            Wanted(record, parked=key in parked)
            for key, record in run.records.items()
            if key not in there or key in parked
        ]

    async def _parked(self, records: Sequence[LineRecord]) -> set[str]:
        """Those of these lines whose row only says `parked`."""
        found: set[str] = set()
        for run in runs_of(records):
            found |= {row["_id"] for row in await self._rows.find_all(_parked_of(run), {"_id": 1})}
        return found & {record.line.line_id for record in records}

    async def _closed(self, batch_ids: set[str]) -> set[str]:
        asked = self._arrivals.to_be_seen(batch_ids)
        if not asked:
            return set()
        found = await self._batches.find_all({"_id": {"$in": asked}, "audit.stage": "closed"}, {"_id": 1})
        closed = {batch["_id"] for batch in found}
        self._arrivals.seen_open(set(asked) - closed)
        return closed

    async def _insert(
        self, rows: Sequence[tuple[LineRecord, Document]]
    ) -> tuple[set[str], list[tuple[LineRecord, str]]]:
        """Insert those not there yet: the lines whose rows these are now, those that can never be inserted.

        Both leave out lines that had a row already.
        """
        if not rows:
            return set(), []
        try:
            there = await self._rows.insert_missing([row for _, row in rows])
        except Exception as error:  # noqa: BLE001 - sorted out below: raised again unless a row is the cause
            refusals = _refusals(error)
            if refusals is not None:
                there = {one["index"] for one in _told(error)} - set(refusals)
                refused = [(rows[position][0], reason) for position, reason in refusals.items()]
                return _ids(rows, there | set(refusals)), refused
            if len(rows) == 1:
                return set(), [(rows[0][0], f"{type(error).__name__}: {error}")]
            half = len(rows) // 2
            stored, refused = await self._insert(rows[:half])
            more, others = await self._insert(rows[half:])
            return stored | more, refused + others
        return _ids(rows, there), []

    async def _replace(self, row: Document) -> str | None:
        """Put a row in the place of a parked one; why not, when it can never be stored."""
        try:
            await self._rows.replace({"_id": row["_id"], "status": PARKED}, row)
        except Exception as error:  # noqa: BLE001 - sorted out below: raised again unless the row is the cause
            refusals = _refusals(error)
            return f"{type(error).__name__}: {error}" if refusals is None else refusals[0]
        return None

    async def _confirm(self, run: SegmentRun) -> None:
        if run.fresh and not run.is_complete and self._arrivals.has_come_to(run):
            return
        if await self._rows.count(run.whole) < run.segment.lines:
            return
        parked = await self._rows.count(_parked_of(run))
        await self._put_receipt(run, parked)
        # a row that another consumer replaced meanwhile may be told of by an earlier receipt than this one
        while parked and (now := await self._rows.count(_parked_of(run))) != parked:
            parked = now
            await self._put_receipt(run, parked)
        CONFIRMED.labels(self._sink).inc()
        self._hit(f"{self._sink}.after_receipt")
        if self._after_receipt is not None:
            await self._after_receipt(run)

    async def _put_receipt(self, run: SegmentRun, parked: int) -> None:
        if self._before_receipt is not None:
            await self._before_receipt(run)
        await self._receipts.put(self._sink, run.batch_id, run.segment.no, run.segment.lines, parked)


def parked_row(line: LineCompleted) -> Document:
    """Stands for a line the sink cannot take: keys and a time, nothing that can have made the row unfit."""
    return {
        "_id": line.line_id,
        "org_id": line.org_id,
        "batch_id": line.batch_id,
        "segment": line.segment.no,
        "line_no": line.line_no,
        "status": PARKED,
        "completed_at": line.timing.completed_at,
    }


def _parked_of(run: SegmentRun) -> Document:
    """Matches the segment's parked rows, by their own small index, else by the key range."""
    return {"status": PARKED, "batch_id": run.batch_id, "segment": run.segment.no, **run.whole}


def _refusals(error: Exception) -> dict[int, str] | None:
    """Position and reason of each row the server refused, None where some row is the cause but not which.

    Anything that is not about a row is raised again.
    """
    if not isinstance(error, DatabaseError):
        # the driver could not encode a row; what the network or the process does is no row's fault
        if isinstance(error, OSError | RuntimeError):
            raise error
        return None
    if getattr(error, "code", None) in _WHOLE:
        return None
    details = getattr(error, "details", None) or {}
    failures = [one for one in _told(error) if one["code"] != _DUPLICATE_KEY]
    if not failures or details.get("writeConcernErrors") or any(one["code"] in _PASSING for one in failures):
        raise error
    return {one["index"]: f"MongoDB {one['code']}: {one['errmsg']}" for one in failures}


def _told(error: Exception) -> Sequence[Document]:
    """What the server says of each row it did not store; a single write's details are of its one failure."""
    details: Document = getattr(error, "details", None) or {}
    told: Sequence[Document] = [details] if "index" in details else details.get("writeErrors", [])
    return told


def _ids(rows: Sequence[tuple[LineRecord, Document]], without: set[int]) -> set[str]:
    return {row["_id"] for position, (_, row) in enumerate(rows) if position not in without}


async def _each(runs: Sequence[SegmentRun], work: Callable[[SegmentRun], Awaitable[_T]]) -> list[_T]:
    """What `work` gives for each run, a few at a time, in order."""
    if len(runs) == 1:
        return [await work(runs[0])]
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(run: SegmentRun) -> _T:
        async with gate:
            return await work(run)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(run)) for run in runs]
    return [task.result() for task in tasks]
