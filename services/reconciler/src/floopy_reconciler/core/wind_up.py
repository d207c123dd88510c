"""A batch's turn: end what must end, offer finished segments to the writer, finalise when all is written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from floopy_common.domain.batch import BatchStatus, Ending
from floopy_common.domain.shard import ShardEnd, ShardState
from floopy_reconciler.core.finalise import Finaliser
from floopy_reconciler.ports import Document, EndingShards, Now, SegmentProgress, Summaries, Turns


@dataclass(frozen=True)
class Graces:
    """Seconds a batch that ends early waits for its provider batches."""

    cancelled: float
    expired: float

    def of(self, ending: Ending) -> float:
        return self.cancelled if ending is Ending.CANCELLED else self.expired


@dataclass(frozen=True)
class Wakers:
    """How the loops that have something to do now hear of it."""

    looks: Callable[[], None]
    segments: Callable[[], None]


class WindUp:
    """Gives every batch under way a turn each `interval` seconds, and at once when it was nudged."""

    def __init__(
        self,
        *,
        turns: Turns,
        shards: EndingShards,
        segments: SegmentProgress,
        summaries: Summaries,
        finaliser: Finaliser,
        graces: Graces,
        interval: float,
        wakers: Wakers,
        now: Now,
    ) -> None:
        self._turns = turns
        self._shards = shards
        self._segments = segments
        self._summaries = summaries
        self._finaliser = finaliser
        self._graces = graces
        self._interval = interval
        self._wakers = wakers
        self._now = now

    async def step(self) -> bool:
        """The next batch's turn; False when none is due."""
        batch = await self._turns.take(self._interval)
        if batch is None:
            return False
        if batch["plan"] is None:
            await self._finaliser.end_unplanned(batch)
        else:
            await self._turn(batch)
        return True

    async def _turn(self, batch: Document) -> None:
        batch_id, plan_id = batch["_id"], batch["plan"]["plan_id"]
        shards = await self._shards.all_of(batch_id, plan_id)
        if batch["status"] == BatchStatus.FINALIZING.value:
            # nothing is owed any more and every segment is offered: it became so after both
            if not await self._finaliser.advance(batch, shards):
                await self._summaries.update(batch)
            return
        owed = owed_by(shards)
        if len(owed) < batch["plan"]["segments"]:
            # A query may miss a shard inserted while it ran; one that begins afterwards cannot, and the shard
            # it was split from was still open when the first began.
            owed |= await self._shards.unsettled_segments(batch_id, plan_id)
        if owed:
            await self._end_early(batch)
        offered = await self._offer(batch, shards, owed)
        await self._summaries.update(batch)
        if not owed:
            await self._finaliser.advance(batch, shards, is_written=not offered)

    async def _end_early(self, batch: Document) -> None:
        """Have no shard of an ending batch outlive its time of grace."""
        decided = await self._decide(batch)
        if decided is None:
            return
        ending, since = decided
        batch_id, plan_id, ended = batch["_id"], batch["plan"]["plan_id"], ShardEnd(ending.value)
        settled = await self._shards.end_unsubmitted(batch_id, plan_id, ended)
        if await self._shards.ask_cancel(batch_id, plan_id):
            self._wakers.looks()
        if (self._now() - since).total_seconds() >= self._graces.of(ending):
            settled += await self._shards.end_overdue(batch_id, plan_id, ended)
        if settled:
            await self._turns.nudge(batch_id)

    async def _decide(self, batch: Document) -> tuple[Ending, datetime] | None:
        """How and since when the batch is ending early; None while it is not."""
        if batch["ending"] is not None:
            return Ending(batch["ending"]), batch["ending_at"]
        now = self._now()
        if batch["status"] != BatchStatus.IN_PROGRESS.value or now < batch["expires_at"]:
            return None
        if not await self._turns.set_ending(batch, Ending.EXPIRED, now):
            return None
        return Ending.EXPIRED, now

    async def _offer(self, batch: Document, shards: Sequence[Document], owed: set[int]) -> bool:
        """Whether any segment was newly offered to the writer.

        Nothing is written while the batch may still turn out to be refused as a whole.
        """
        if len(owed) >= batch["plan"]["segments"]:
            return False
        ran = any(shard["state"] == ShardState.SETTLED.value for shard in shards)
        if not ran and batch["status"] != BatchStatus.CANCELLING.value:
            return False
        offered = await self._segments.mark_ready(batch["_id"], batch["plan"]["plan_id"], owed) > 0
        if offered:
            self._wakers.segments()
        return offered


def owed_by(shards: Sequence[Document]) -> set[int]:
    """Numbers of the segments that some of `shards` still owe lines to."""
    return {
        number
        for shard in shards
        if not ShardState(shard["state"]).is_terminal
        for number in shard["segments"]
    }
