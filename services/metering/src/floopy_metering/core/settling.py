"""Settles what batches have reserved of their organisation's monthly cap, exactly once each."""

from floopy_common.domain.batch import BatchStatus
from floopy_metering.core.usage import Accountant
from floopy_metering.ports import Caps, Document, Hit, Reservation, Reservations, Segment, UsageBatches


class Settlement:
    """A batch counts the lines that were run; one that never ran any gives everything back."""

    def __init__(
        self,
        accountant: Accountant,
        *,
        caps: Caps,
        usage: UsageBatches,
        reservations: Reservations,
        hit: Hit,
    ) -> None:
        self._accountant = accountant
        self._caps = caps
        self._usage = usage
        self._reservations = reservations
        self._hit = hit

    async def segment_confirmed(self, segment: Segment) -> None:
        """Record and settle the batch when this was its last segment without a receipt."""
        usage = await self._accountant.record(segment.batch_id, segment.segments)
        if usage is not None and not usage["settled"]:
            await self._settle(usage)

    async def step(self) -> bool:
        """Settle ended batches that no line event settles: those without segments, or cut short by a crash.

        Always False: what cannot be settled yet waits for the next scan.
        """
        for reservation in await self._reservations.ended():
            await self._settle_ended(reservation)
        return False

    async def _settle_ended(self, reservation: Reservation) -> None:
        if reservation.status == BatchStatus.FAILED or not reservation.segments:
            await self._caps.settle(reservation.org_id, reservation.batch_id, reservation.month, 0)
            return
        usage = await self._accountant.record(reservation.batch_id, reservation.segments)
        if usage is not None:
            await self._settle(usage)

    async def _settle(self, usage: Document) -> None:
        lines = usage["lines"] - usage["not_run"]
        await self._caps.settle(usage["org_id"], usage["_id"], usage["month"], lines)
        self._hit("metering.after_settle")
        await self._usage.mark_settled(usage["_id"])
