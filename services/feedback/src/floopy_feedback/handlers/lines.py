"""Takes deliveries of line events: rows, then events of what is stored, then receipts."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

from floopy_common.chassis.consumer import LineRecord
from floopy_common.chassis.loop import in_pieces
from floopy_common.events.scores import LINE_SCORED, scored_event
from floopy_common.stores.confirming import PARKED, Confirming, Wanted, overlapped
from floopy_common.stores.segment_runs import SegmentRun, runs_of
from floopy_feedback.core.rows import ROWS, RowMaker, size_of
from floopy_feedback.metrics import count_rows
from floopy_feedback.ports import Document, Hit, Rows, Sender

_PART_BYTES: Final = 16 * 1024 * 1024
"""Bytes of bodies scored before their rows are stored: a part is small when its lines are large."""

_Part = list[tuple[Wanted, Document]]


class LineScorer:
    """Every step may be repeated; the offsets are committed after the last."""

    def __init__(
        self, *, confirming: Confirming, make: RowMaker, stored: Rows, sender: Sender, hit: Hit
    ) -> None:
        self._confirming = confirming
        self._make = make
        self._stored = stored
        self._sender = sender
        self._hit = hit

    async def take(self, records: Sequence[LineRecord]) -> None:
        """Return once every line has its row and its event, and every complete segment its receipt."""
        runs = runs_of(records)
        told = await self._store(await self._confirming.wanted(runs))
        await self._tell_others(runs, told)
        self._hit("feedback.after_scored_events")
        await self._confirming.confirm(runs)

    async def _store(self, wanted: Sequence[Wanted]) -> set[str]:
        """Make and store the rows; the ids of those that are now certainly as made, and told of."""
        told: set[str] = set()
        telling: list[asyncio.Task[None]] = []

        async def store(part: _Part) -> None:
            stored = await self._confirming.store(part)
            # the next rows are stored while the broker takes the events of these
            rows = [(one.record, row) for one, row in part if row["_id"] in stored]
            telling.append(asyncio.create_task(self._tell(rows)))
            told.update(stored)

        try:
            async with aclosing(self._parts(wanted)) as parts:
                await overlapped(parts, store)
            for task in telling:
                await task
        finally:
            for task in telling:
                task.cancel()
            await asyncio.gather(*telling, return_exceptions=True)
        return told

    async def _parts(self, wanted: Sequence[Wanted]) -> AsyncGenerator[_Part, None]:
        """Rows to store together, few when their lines are large.

        What is stored stays: a delivery that takes longer than the broker waits for would else never end.
        """
        by_line = {one.record.line.line_id: one for one in wanted}
        part: _Part = []
        held = 0
        async with aclosing(self._make.rows([one.record.line for one in wanted])) as made:
            async for rows in made:
                count_rows(rows)
                with_lines = [(by_line[row["_id"]], row) for row in rows]
                part += with_lines
                held += sum(size_of(one.record.line) for one, _ in with_lines)
                if len(part) >= ROWS or held >= _PART_BYTES:
                    yield part
                    part, held = [], 0
        if part:
            yield part

    async def _tell(self, rows: Sequence[tuple[LineRecord, Document]]) -> None:
        """An event of each row, on the partition its line came from."""
        told: dict[int, list[tuple[bytes, bytes]]] = {}
        async for piece in in_pieces(rows):
            for record, row in piece:
                event = (row["_id"].encode(), scored_event(row))
                told.setdefault(record.record.partition, []).append(event)
        for partition, records in told.items():
            await self._sender.send_batch(LINE_SCORED, partition, records)

    async def _tell_others(self, runs: Sequence[SegmentRun], told: set[str]) -> None:
        """The same of the delivered lines whose rows have not just been stored: they are read.

        Not those of settled segments: their receipts were stored after the events.
        """
        for run in runs:
            if run.settled:
                continue
            rows = await self._stored.rows(run.records.keys() - told)
            await self._tell([(run.records[row["_id"]], row) for row in rows if row["status"] != PARKED])
