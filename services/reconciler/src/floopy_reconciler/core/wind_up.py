"""A batch's turn: end what must end, offer finished segments to the writer, finalise when all is written."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from floopy_common.domain.batch import BatchStatus, Ending
from floopy_common.domain.shard import ShardEnd, ShardState
from floopy_reconciler.core.agenda import AT_ONCE, Agenda, side_by_side
from floopy_reconciler.core.finalise import Finaliser
from floopy_reconciler.core.ready import ReadySegments
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


@dataclass(frozen=True)
class Rhythm:
    """Seconds: `interval` between two regular turns of a batch at least, `scan` between two searches for
    what is due.
    """

    interval: float
    scan: float


class WindUp:
    """Gives every batch under way a turn from time to time, and at once when it is on the agenda."""

    def __init__(
        self,
        *,
        agenda: Agenda,
        turns: Turns,
        shards: EndingShards,
        segments: SegmentProgress,
        ready: ReadySegments,
        summaries: Summaries,
        finaliser: Finaliser,
        graces: Graces,
        rhythm: Rhythm,
        wakers: Wakers,
        now: Now,
        monotonic: Callable[[], float],
    ) -> None:
        self._agenda = agenda
        self._turns = turns
        self._shards = shards
        self._segments = segments
        self._ready = ready
        self._summaries = summaries
        self._finaliser = finaliser
        self._graces = graces
        self._rhythm = rhythm
        self._wakers = wakers
        self._now = now
        self._monotonic = monotonic
        self._search_at = 0.0
        self._failed: list[str] = []

    def search(self) -> None:
        """Have the next step look for batches that are due, whoever has made them so."""
        self._search_at = 0.0

    async def step(self) -> bool:
        """Some of the turns that are asked for, and from time to time those that are due; False when none is.

        The due ones wait for no agenda to become empty: there may always be something on it.
        """
        due: list[Document] = []
        started = self._monotonic()
        if started >= self._search_at:
            due = await self._turns.take(AT_ONCE, self._rhythm.interval)
            if self._agenda or len(due) < AT_ONCE:
                self._search_at = started + self._rhythm.scan
            self._ask_again()
        taken = {batch["_id"] for batch in due}
        asked = [batch_id for batch_id in self._agenda.take(AT_ONCE) if batch_id not in taken]
        await side_by_side(
            [
                *(self._kept(batch["_id"], self._take_up(batch)) for batch in due),
                *(self._kept(batch_id, self._turn_of(batch_id)) for batch_id in asked),
            ]
        )
        return bool(due or asked)

    def _ask_again(self) -> None:
        failed, self._failed = self._failed, []
        for batch_id in failed:
            self._agenda.ask(batch_id)

    async def _kept(self, batch_id: str, turn: Awaitable[None]) -> None:
        """A turn that fails comes again with the next search: its regular repeat may be minutes away."""
        try:
            await turn
        except Exception:
            self._failed.append(batch_id)
            raise

    async def _turn_of(self, batch_id: str) -> None:
        batch = await self._turns.get(batch_id)
        if batch is not None:
            await self._take_up(batch)

    async def _take_up(self, batch: Document) -> None:
        if batch["plan"] is None:
            await self._finaliser.end_unplanned(batch)
        else:
            await self._turn(batch)

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
        if owed or not await self._finaliser.advance(batch, shards, is_written=not offered):
            await self._summaries.update(batch)

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
            self._agenda.ask(batch_id)

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
        offered = await self._segments.mark_ready(batch["_id"], batch["plan"]["plan_id"], owed)
        if offered:
            self._ready.offer(batch["_id"], offered)
            self._wakers.segments()
        return bool(offered)


def owed_by(shards: Sequence[Document]) -> set[int]:
    """Numbers of the segments that some of `shards` still owe lines to."""
    return {
        number
        for shard in shards
        if not ShardState(shard["state"]).is_terminal
        for number in shard["segments"]
    }
