"""How a sink stores lines and confirms segments: the same for every sink, whatever its rows are.

    runs = runs_of(records)
    wanted = await confirming.wanted(runs)
    await confirming.store([(one, row(one.record.line)) for one in wanted])
    await confirming.confirm(runs)

Every step may be repeated, interrupted, or done twice at once; the offset is committed after the last. What
a delivery brings of many segments is looked up, confirmed and told of together.

A segment usually comes once, in order, to one process. While it does, that process neither looks for rows
that are there already nor counts what it has itself stored: see `Arrivals`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from prometheus_client import Counter

from floopy_common.chassis.consumer import LineRecord
from floopy_common.chassis.loop import in_pieces
from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.domain.ids import receipt_id
from floopy_common.domain.segment import Sink
from floopy_common.events.lines import LineCompleted
from floopy_common.stores.receipts import Confirmed, ReceiptStore
from floopy_common.stores.refusals import refusals, told
from floopy_common.stores.segment_runs import Arrivals, SegmentRun, Tally, runs_of

_T = TypeVar("_T")
_R = TypeVar("_R")

PARKED = "parked"
"""Status of a row that stands for a line the sink could not take."""

CONFIRMED = Counter("floopy_segments_confirmed_total", "Receipts written or found in place.", ["sink"])
REPEATED = Counter("floopy_lines_repeated_total", "Delivered lines that had their row already.", ["sink"])

_AT_ONCE = 4
"""Segments looked after at the same time; measured: more in flight gains nothing."""
_PART: Final = 1_000
"""Rows of one insert; the rows of the next are made meanwhile."""

Park = Callable[[Sequence[tuple[LineRecord, str]]], Awaitable[None]]
"""Makes dead letters of lines, with the reasons; durable when it returns."""


class Wanted(NamedTuple):
    """A line that lacks a row, or has one that only says `parked`."""

    record: LineRecord
    parked: bool


Hook = Callable[[Sequence[SegmentRun]], Awaitable[None]]


class Confirming:
    """One sink's rows and receipts.

    `collection` holds the rows, keyed by line id. `before_receipts` is called with the segments of a delivery
    that are complete before their receipts are written, `after_receipts` after; `tally` makes what counts the
    rows of a segment meanwhile, for whoever would have to read them all again. `hit` gets the names
    `<sink>.after_dead_letter`, `<sink>.after_insert` and `<sink>.after_receipt`.
    """

    def __init__(
        self,
        mongo: Mongo,
        sink: Sink,
        collection: str,
        *,
        park: Park,
        hit: Callable[[str], None],
        before_receipts: Hook | None = None,
        after_receipts: Hook | None = None,
        tally: Callable[[], Tally] | None = None,
    ) -> None:
        self._rows = mongo.collection(collection)
        self._batches = mongo.collection("batches")
        self._receipts = ReceiptStore(mongo)
        self._sink = sink
        self._park = park
        self._hit = hit
        self._before_receipts = before_receipts
        self._after_receipts = after_receipts
        self._arrivals = Arrivals(tally)

    async def take(self, records: Sequence[LineRecord], row: Callable[[LineCompleted], Document]) -> None:
        """The whole step for a sink whose rows follow from the events alone."""
        runs = runs_of(records)
        wanted = await self.wanted(runs)

        async def parts() -> AsyncIterator[list[tuple[Wanted, Document]]]:
            for start in range(0, len(wanted), _PART):
                rows: list[tuple[Wanted, Document]] = []
                async for piece in in_pieces(wanted[start : start + _PART]):
                    rows += [(one, row(one.record.line)) for one in piece]
                yield rows

        await overlapped(parts(), self.store)
        await self.confirm(runs)

    async def wanted(self, runs: Sequence[SegmentRun]) -> list[Wanted]:
        """The lines that are to be stored, in the order they came.

        A batch whose audit is closed takes no rows any more, so that what retention has removed does not
        come back with a late repeat. The one who closes it must do so before it removes rows.
        """
        asked = [run for run in runs if not self._is_presumed_fresh(run)]
        there = dict(zip((run.key for run in asked), await _each(asked, self._there), strict=True))
        await self._mark_settled([run for run in asked if run.records.keys() <= there[run.key]])
        wanted: list[Wanted] = []
        for run in runs:
            self._arrivals.arrived(run)
            wanted += await self._lacking(run, there.get(run.key, set()))
        REPEATED.labels(self._sink).inc(sum(len(run.records) for run in runs) - len(wanted))
        if not wanted:
            return []
        closed = await self._closed({run.batch_id for run in runs})
        if not closed:
            return wanted
        self._arrivals.forget(one.record.line for one in wanted if one.record.line.batch_id in closed)
        return [one for one in wanted if one.record.line.batch_id not in closed]

    async def store(self, rows: Sequence[tuple[Wanted, Document]]) -> set[str]:
        """Store each line's row, or a parked one and a dead letter where the row can never be stored.

        The ids of the lines whose row is now certainly as given; others may have been there with another.
        """
        fresh = [(one.record, row) for one, row in rows if not one.parked]
        stored, refused = await self._insert(fresh)
        self._arrivals.forget(record.line for record, _ in refused)
        parked = {row["_id"] for one, row in rows if one.parked}
        if len(stored) + len(refused) < len(fresh):
            parked |= await self._found_there([record for record, row in fresh if row["_id"] not in stored])
        if len(stored) < len(fresh):
            fresh = [(record, row) for record, row in fresh if row["_id"] in stored]
        self._arrivals.stored(fresh)
        if parked:
            refused += await self._replaced([(one, row) for one, row in rows if row["_id"] in parked])
        if refused:
            await self._park(refused)
            self._hit(f"{self._sink}.after_dead_letter")
            # of a line that not even this can be said of, the dead letter is all there will be
            await self._insert([(record, parked_row(record.line)) for record, _ in refused])
        self._hit(f"{self._sink}.after_insert")
        return stored

    async def confirm(self, runs: Sequence[SegmentRun]) -> None:
        """Write the receipts of the touched segments that are complete."""
        settled = [run for run in runs if run.settled and run.is_complete]
        told_of = [Confirmed(run, 0, unbroken=True) for run in runs if self._arrivals.is_stored(run)]
        doubtful = [run for run in runs if self._is_doubtful(run)]
        told_of += [one for one in await _each(doubtful, self._counted) if one is not None]
        if told_of:
            await self._put_receipts(told_of)
        elif not settled:
            return
        parked = [one for one in told_of if one.parked]
        # a row that another consumer replaced meanwhile may be told of by an earlier receipt than this one
        while parked:
            now = await _each(parked, self._recounted)
            changed = [after for before, after in zip(parked, now, strict=True) if after != before]
            if changed:
                await self._put_receipts(changed)
            parked = [one for one in changed if one.parked]
        for one in told_of:
            self._arrivals.ended(one.run)
        CONFIRMED.labels(self._sink).inc(len(told_of) + len(settled))
        self._hit(f"{self._sink}.after_receipt")
        if self._after_receipts is not None:
            # who stored a settled segment's receipt may have died before this
            await self._after_receipts([*(one.run for one in told_of), *settled])

    def _is_presumed_fresh(self, run: SegmentRun) -> bool:
        """Whether the run's rows are inserted without asking what is there."""
        run.fresh = self._arrivals.goes_on(run)
        if not run.fresh:
            self._arrivals.look_again(run.batch_id)
            run.fresh = run.is_small_and_whole
        return run.fresh

    async def _there(self, run: SegmentRun) -> set[str]:
        """The ids of what is there of the run, of the whole segment where it begins."""
        begins = run.first_line == run.segment.first_line
        # covered by the index on _id: 1.5 us a row that is there, nothing for a first delivery
        found = await self._rows.find_all(run.whole if begins else run.delivered, {"_id": 1})
        run.fresh = begins and not found
        return {row["_id"] for row in found}

    async def _mark_settled(self, runs: Sequence[SegmentRun]) -> None:
        """A receipt comes last, so where there is one of an unbroken segment a repeat has nothing to do.

        Rows that have gone since are the audit's to find: it takes the receipt away before it has the lines
        told of again.
        """
        if runs:
            settled = await self._receipts.settled(self._sink, runs)
            for run in runs:
                run.settled = receipt_id(run.batch_id, run.segment.no, self._sink.value) in settled

    async def _lacking(self, run: SegmentRun, there: set[str]) -> list[Wanted]:
        if run.settled:
            return []
        if not there:
            return [Wanted(record, parked=False) for record in run.records.values()]
        parked = await self._parked(list(run.records.values()))
        return [
            Wanted(record, parked=key in parked)
            for key, record in run.records.items()
            if key not in there or key in parked
        ]

    async def _found_there(self, records: Sequence[LineRecord]) -> set[str]:
        """Deal with lines that had a row against all appearances: those whose row only says `parked`."""
        self._arrivals.forget(record.line for record in records)
        parked = await self._parked(records)
        REPEATED.labels(self._sink).inc(len(records) - len(parked))
        return parked

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
        # by their ids alone: a server that chose the index on stages would look through all that ever closed
        found = await self._batches.find_all({"_id": {"$in": asked}}, {"audit.stage": 1})
        closed = {batch["_id"] for batch in found if batch.get("audit", {}).get("stage") == "closed"}
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
            found = refusals(error)
            if found is not None:
                there = {one["index"] for one in told(error)} - set(found)
                refused = [(rows[position][0], reason) for position, reason in found.items()]
                return _ids(rows, there | set(found)), refused
            if len(rows) == 1:
                return set(), [(rows[0][0], f"{type(error).__name__}: {error}")]
            half = len(rows) // 2
            stored, refused = await self._insert(rows[:half])
            more, others = await self._insert(rows[half:])
            return stored | more, refused + others
        return _ids(rows, there), []

    async def _replaced(self, rows: Sequence[tuple[Wanted, Document]]) -> list[tuple[LineRecord, str]]:
        """Put rows in the place of parked ones; those that cannot be stored, and why."""
        return [(one.record, reason) for one, row in rows if (reason := await self._replace(row)) is not None]

    async def _replace(self, row: Document) -> str | None:
        """Put a row in the place of a parked one; why not, when it can never be stored."""
        try:
            await self._rows.replace({"_id": row["_id"], "status": PARKED}, row)
        except Exception as error:  # noqa: BLE001 - sorted out below: raised again unless the row is the cause
            found = refusals(error)
            return f"{type(error).__name__}: {error}" if found is None else found[0]
        return None

    def _is_doubtful(self, run: SegmentRun) -> bool:
        """Whether the segment has to be counted before it can be confirmed."""
        return not (run.settled or self._arrivals.is_stored(run) or self._is_on_its_way(run))

    def _is_on_its_way(self, run: SegmentRun) -> bool:
        """Whether the segment has come in order so far, and more of it is to come."""
        return run.fresh and not run.is_complete and self._arrivals.has_come_to(run)

    async def _counted(self, run: SegmentRun) -> Confirmed | None:
        """What there is to confirm of a segment of which not every row is this process's own."""
        if await self._rows.count(run.whole) < run.segment.lines:
            return None
        return await self._recounted(Confirmed(run, 0))

    async def _recounted(self, before: Confirmed) -> Confirmed:
        return Confirmed(before.run, await self._rows.count(_parked_of(before.run)))

    async def _put_receipts(self, confirmed: Sequence[Confirmed]) -> None:
        if self._before_receipts is not None:
            await self._before_receipts([one.run for one in confirmed])
        await self._receipts.put_all(self._sink, confirmed)


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


def _ids(rows: Sequence[tuple[LineRecord, Document]], without: set[int]) -> set[str]:
    return {row["_id"] for position, (_, row) in enumerate(rows) if position not in without}


async def overlapped(parts: AsyncIterator[_T], work: Callable[[_T], Coroutine[Any, Any, object]]) -> None:
    """Work on each part in turn while the next one is made."""
    at_work: asyncio.Task[object] | None = None
    try:
        async for part in parts:
            if at_work is not None:
                await at_work
            at_work = asyncio.create_task(work(part))
        if at_work is not None:
            await at_work
    finally:
        if at_work is not None and not at_work.done():
            at_work.cancel()
            await asyncio.gather(at_work, return_exceptions=True)


async def _each(items: Sequence[_T], work: Callable[[_T], Awaitable[_R]]) -> list[_R]:
    """What `work` gives for each item, a few at a time, in order."""
    if len(items) <= 1:
        return [await work(item) for item in items]
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(item: _T) -> _R:
        async with gate:
            return await work(item)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(item)) for item in items]
    return [task.result() for task in tasks]
