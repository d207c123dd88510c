"""Settles what batches have reserved of their organisation's monthly cap, exactly once each."""

from collections import Counter
from collections.abc import Sequence

from floopy_common.domain.batch import BatchStatus
from floopy_common.domain.settled import Settled
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

    async def segments_confirmed(self, segments: Sequence[Segment]) -> None:
        """Record and settle the batches of which these were the last segments without receipts."""
        planned = {segment.batch_id: segment.segments for segment in segments}
        usage = await self._accountant.record(planned, Counter(segment.batch_id for segment in segments))
        await self._settle([one for one in usage if not one["settled"]])

    async def step(self) -> bool:
        """Settle ended batches that no line event settles: those without segments, or cut short by a crash.

        Always False: what cannot be settled yet waits for the next scan.
        """
        ended = await self._reservations.ended()
        await self._caps.settle_all(
            [Settled(one.org_id, one.batch_id, one.month, 0) for one in ended if not _has_run(one)]
        )
        planned = {one.batch_id: one.segments or 0 for one in ended if _has_run(one)}
        await self._settle(await self._accountant.record(planned))
        return False

    async def _settle(self, usage: Sequence[Document]) -> None:
        if not usage:
            return
        await self._caps.settle_all(
            [Settled(one["org_id"], one["_id"], one["month"], one["lines"] - one["not_run"]) for one in usage]
        )
        self._hit("metering.after_settle")
        await self._usage.mark_settled([one["_id"] for one in usage])


def _has_run(reservation: Reservation) -> bool:
    """Whether the batch has segments, whose lines are counted."""
    return reservation.status != BatchStatus.FAILED and bool(reservation.segments)
