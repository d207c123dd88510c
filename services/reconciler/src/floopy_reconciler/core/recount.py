"""Recounts rows against receipts: a receipt whose rows are gone is void, so the segment is emitted again."""

import logging

from floopy_common.domain.segment import Sink
from floopy_reconciler.ports import AuditHold, AuditReports, Recounts

_log = logging.getLogger(__name__)

_SLICE = 25
"""Segments counted between two renewals of the lease, some 5 ms each."""
_SLICES = 20
"""Slices in one go while nothing is amiss: then other batches get their turn."""
FROM_THE_START = -1


class Recount:
    """Goes through a batch's segments in order."""

    def __init__(self, *, recounts: Recounts, reports: AuditReports) -> None:
        self._recounts = recounts
        self._reports = reports

    async def run(self, hold: AuditHold, after: int) -> tuple[int | None, int]:
        """Count on behind segment `after`; (the segment reached, None at the end; receipts found void).

        Where one receipt is void, more will be, so the rest is counted at once.
        """
        batch_id, plan_id = hold.batch["_id"], hold.batch["plan"]["plan_id"]
        void = slices = 0
        while slices < _SLICES or void:
            slices += 1
            segments = await self._recounts.segments_behind(batch_id, plan_id, after, _SLICE)
            for segment in segments:
                short = await self._recounts.short(batch_id, segment)
                if short:
                    await self._void(batch_id, plan_id, segment["no"], short)
                    void += len(short)
            if len(segments) < _SLICE:
                return None, void
            after = segments[-1]["no"]
            await hold.renew()
        return after, void

    async def _void(self, batch_id: str, plan_id: str, no: int, short: set[Sink]) -> None:
        await self._recounts.void(batch_id, plan_id, no, short)
        for sink in short:
            self._reports.miscounted(sink)
            _log.error(
                "rows that a sink had confirmed are gone",
                extra={"event": "recount_short", "batch_id": batch_id, "segment": no, "sink": sink.value},
            )
