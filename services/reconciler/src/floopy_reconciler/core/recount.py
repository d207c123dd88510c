"""Recounts rows against receipts: a receipt whose rows are gone is void, so the segment is emitted again."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from floopy_common.domain.errors import LeaseLost
from floopy_common.domain.segment import Sink
from floopy_reconciler.ports import AuditHold, AuditReports, Document, Recounts

_log = logging.getLogger(__name__)

_SLICE = 25
"""Segments counted between two renewals of the lease, some 5 ms each."""
_SLICES = 20
"""Slices in one go while nothing is amiss: then other batches get their turn."""
FROM_THE_START = -1
TOGETHER = 500
"""Segments of several batches that are looked at by one call; a batch with more of them comes alone."""


@dataclass(frozen=True)
class Counted:
    """The segment a recount has reached, None at the end, and how many receipts it has found void."""

    reached: int | None
    void: int


class Recount:
    """Goes through batches' segments in order."""

    def __init__(self, *, recounts: Recounts, reports: AuditReports) -> None:
        self._recounts = recounts
        self._reports = reports

    async def run(self, works: Sequence[tuple[AuditHold, int]]) -> dict[str, Counted]:
        """Count each batch on behind the segment given with it; by batch, what came of it.

        Several batches have no more segments than `TOGETHER`. One whose lease is lost is left out.
        """
        whole = [hold for hold, after in works if after == FROM_THE_START] if len(works) > 1 else []
        counted = await self._whole(whole) if whole else {}
        for hold, after in works:
            if hold.batch["_id"] not in counted:
                try:
                    counted[hold.batch["_id"]] = await self._in_slices(hold, after)
                except LeaseLost:
                    _log.info(
                        "recount left to another",
                        extra={"event": "recount_left", "batch_id": hold.batch["_id"]},
                    )
        return counted

    async def _whole(self, holds: Sequence[AuditHold]) -> dict[str, Counted]:
        plans = plans_of(hold.batch for hold in holds)
        void = await self._void(await self._recounts.segments_behind(plans, FROM_THE_START, TOGETHER), plans)
        return {batch_id: Counted(None, void.get(batch_id, 0)) for batch_id in plans}

    async def _in_slices(self, hold: AuditHold, after: int) -> Counted:
        """Where one receipt is void, more will be, so the rest is counted at once."""
        plans = plans_of([hold.batch])
        void = slices = 0
        while slices < _SLICES or void:
            slices += 1
            segments = await self._recounts.segments_behind(plans, after, _SLICE)
            void += sum((await self._void(segments, plans)).values())
            if len(segments) < _SLICE:
                return Counted(None, void)
            after = segments[-1]["no"]
            await hold.renew()
        return Counted(after, void)

    async def _void(self, segments: Sequence[Document], plans: Mapping[str, str]) -> dict[str, int]:
        """Void the receipts of those that are short of rows; how many, by batch."""
        short = await self._recounts.short(segments)
        void: dict[str, int] = {}
        for segment in segments:
            sinks = short.get(segment["_id"])
            if sinks:
                batch_id, no = segment["batch_id"], segment["no"]
                await self._recounts.void(batch_id, plans[batch_id], no, sinks)
                self._report(batch_id, no, sinks)
                void[batch_id] = void.get(batch_id, 0) + len(sinks)
        return void

    def _report(self, batch_id: str, no: int, sinks: set[Sink]) -> None:
        for sink in sinks:
            self._reports.miscounted(sink)
            _log.error(
                "rows that a sink had confirmed are gone",
                extra={"event": "recount_short", "batch_id": batch_id, "segment": no, "sink": sink.value},
            )


def plans_of(batches: Iterable[Document]) -> dict[str, str]:
    """The plan id of each batch."""
    return {batch["_id"]: batch["plan"]["plan_id"] for batch in batches}
