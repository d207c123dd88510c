"""How a sink stores lines and confirms segments: the same for every sink, whatever its rows are.

    runs = runs_of(records)
    wanted = await confirming.wanted(runs)
    await confirming.store([(one, row(one.record.line)) for one in wanted])
    await confirming.confirm(runs)

Every step may be repeated, interrupted, or done twice at once; the offset is committed after the last.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from prometheus_client import Counter

from floopy_common.chassis.consumer import LineRecord
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

    @property
    def whole(self) -> Filter:
        """Matches the rows of the whole segment."""
        first = line_id(self.batch_id, self.segment.first_line)
        return {"_id": {"$gte": first, "$lte": line_id(self.batch_id, self.segment.last_line)}}

    @property
    def delivered(self) -> Filter:
        """Matches the rows from the first to the last line that was delivered."""
        return {"_id": {"$gte": min(self.records), "$lte": max(self.records)}}


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
        run.records[line.line_id] = record
    return list(runs.values())


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

    async def take(self, records: Sequence[LineRecord], row: Callable[[LineCompleted], Document]) -> None:
        """The whole step for a sink whose rows follow from the events alone."""
        runs = runs_of(records)
        wanted = await self.wanted(runs)
        await self.store([(one, row(one.record.line)) for one in wanted])
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

    async def store(self, rows: Sequence[tuple[Wanted, Document]]) -> None:
        """Store each line's row, or a parked one and a dead letter where the row can never be stored."""
        fresh = [(one.record, row) for one, row in rows if not one.parked]
        refused = await self._insert(fresh)
        for one, row in rows:
            if one.parked and (reason := await self._replace(row)) is not None:
                refused.append((one.record, reason))
        if refused:
            await self._park(refused)
            self._hit(f"{self._sink}.after_dead_letter")
            # of a line that not even this can be said of, the dead letter is all there will be
            await self._insert([(record, parked_row(record.line)) for record, _ in refused])
        self._hit(f"{self._sink}.after_insert")

    async def confirm(self, runs: Sequence[SegmentRun]) -> None:
        """Write the receipt of every touched segment that is complete."""
        await _each(runs, self._confirm)

    async def _wanted(self, run: SegmentRun) -> list[Wanted]:
        # covered by the index on _id: 1.5 us a row that is there, nothing for a first delivery
        there = {row["_id"] for row in await self._rows.find_all(run.delivered, {"_id": 1})}
        if not there:
            return [Wanted(record, parked=False) for record in run.records.values()]
        parked = {row["_id"] for row in await self._rows.find_all(_parked_of(run), {"_id": 1})}
        return [
            Wanted(record, parked=key in parked)
            for key, record in run.records.items()
            if key not in there or key in parked
        ]

    async def _closed(self, batch_ids: set[str]) -> set[str]:
        found = await self._batches.find_all(
            {"_id": {"$in": sorted(batch_ids)}, "audit.stage": "closed"}, {"_id": 1}
        )
        return {batch["_id"] for batch in found}

    async def _insert(self, rows: Sequence[tuple[LineRecord, Document]]) -> list[tuple[LineRecord, str]]:
        """Insert those not there yet; the lines whose rows can never be inserted, with the reasons."""
        if not rows:
            return []
        try:
            await self._rows.insert_missing([row for _, row in rows])
        except Exception as error:  # noqa: BLE001 - sorted out below: raised again unless a row is the cause
            refusals = _refusals(error)
            if refusals is not None:
                return [(rows[position][0], reason) for position, reason in refusals.items()]
            if len(rows) == 1:
                return [(rows[0][0], f"{type(error).__name__}: {error}")]
            half = len(rows) // 2
            return [*await self._insert(rows[:half]), *await self._insert(rows[half:])]
        return []

    async def _replace(self, row: Document) -> str | None:
        """Put a row in the place of a parked one; why not, when it can never be stored."""
        try:
            await self._rows.replace({"_id": row["_id"], "status": PARKED}, row)
        except Exception as error:  # noqa: BLE001 - sorted out below: raised again unless the row is the cause
            refusals = _refusals(error)
            return f"{type(error).__name__}: {error}" if refusals is None else refusals[0]
        return None

    async def _confirm(self, run: SegmentRun) -> None:
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
    # a single write's details are those of its one failure
    told = [details] if "index" in details else details.get("writeErrors", [])
    failures = [one for one in told if one["code"] != _DUPLICATE_KEY]
    if not failures or details.get("writeConcernErrors") or any(one["code"] in _PASSING for one in failures):
        raise error
    return {one["index"]: f"MongoDB {one['code']}: {one['errmsg']}" for one in failures}


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
