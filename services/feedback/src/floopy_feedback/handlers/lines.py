"""Takes deliveries of line events: rows, then events of what is stored, then receipts."""

from collections.abc import Iterator, Sequence
from typing import Final

from floopy_common.chassis.consumer import LineRecord
from floopy_common.chassis.loop import in_pieces
from floopy_common.events.scores import LINE_SCORED, scored_event
from floopy_common.stores.confirming import PARKED, Confirming, SegmentRun, Wanted, runs_of
from floopy_feedback.core.rows import RowMaker, size_of
from floopy_feedback.metrics import count_rows
from floopy_feedback.ports import Document, Hit, Rows, Sender

_PART: Final = 16 * 1024 * 1024
"""Bytes of bodies scored before their rows are stored: whole deliveries, unless their lines are large."""


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
        wanted = await self._confirming.wanted(runs)
        events: dict[str, bytes] = {}
        for part in _parts(wanted):
            rows = await self._rows(part)
            stored = await self._confirming.store(rows)
            async for piece in in_pieces(rows):
                events.update((row["_id"], scored_event(row)) for _, row in piece if row["_id"] in stored)
        await self._publish(runs, events)
        self._hit("feedback.after_scored_events")
        await self._confirming.confirm(runs)

    async def _rows(self, wanted: Sequence[Wanted]) -> list[tuple[Wanted, Document]]:
        by_line = {one.record.line.line_id: one for one in wanted}
        rows = await self._make.rows([one.record.line for one in wanted])
        count_rows(rows)
        return [(by_line[row["_id"]], row) for row in rows]

    async def _publish(self, runs: Sequence[SegmentRun], events: dict[str, bytes]) -> None:
        """An event for each delivered line as its row says, on the partition the line came from.

        `events` has those of rows that have just been stored; the other rows are read.
        """
        for run in runs:
            others = run.records.keys() - events.keys()
            for row in await self._stored.rows(others):
                if row["status"] != PARKED:
                    events[row["_id"]] = scored_event(row)
        told: dict[int, list[tuple[bytes, bytes]]] = {}
        for run in runs:
            for line_id, record in run.records.items():
                if (event := events.get(line_id)) is not None:
                    told.setdefault(record.record.partition, []).append((line_id.encode(), event))
        for partition, records in told.items():
            await self._sender.send_batch(LINE_SCORED, partition, records)


def _parts(wanted: Sequence[Wanted]) -> Iterator[list[Wanted]]:
    """Lines to score and store together, few when they are large.

    What is stored stays: a delivery that takes longer than the broker waits for would never end otherwise.
    """
    part: list[Wanted] = []
    held = 0
    for one in wanted:
        part.append(one)
        held += size_of(one.record.line)
        if held >= _PART:
            yield part
            part, held = [], 0
    if part:
        yield part
