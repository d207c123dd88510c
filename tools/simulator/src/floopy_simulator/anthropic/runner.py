"""Moves message batches to their end as the clock or a test says."""

from collections.abc import Callable
from enum import StrEnum

from floopy_simulator.anthropic.batches import Batch, BatchStore, Status
from floopy_simulator.anthropic.work import Work
from floopy_simulator.batch_tasks import BatchTasks
from floopy_simulator.clock import Clock
from floopy_simulator.config import Config

SHORTEST_TICK = 0.02
STEPS = 20
"""Requests are executed in about this many steps."""
EXECUTED_AT = 0.85
"""Share of `batch_seconds` after which execution is over."""
CANCELED, EXPIRED = "canceled", "expired"


class Target(StrEnum):
    """Where a test can take a batch: its states, its ends, and the words the OpenAI half has for them."""

    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    CANCELING = "canceling"
    CANCELLING = "cancelling"
    ENDED = "ended"
    COMPLETED = "completed"
    CANCELED = "canceled"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


WHOLE = frozenset({Target.FINALIZING, Target.ENDED, Target.COMPLETED})
"""Everything is executed on the way there, unless the batch is being canceled."""
CANCELS = frozenset({Target.CANCELING, Target.CANCELLING, Target.CANCELED, Target.CANCELLED})
ENDS = frozenset({Target.ENDED, Target.COMPLETED, Target.CANCELED, Target.CANCELLED, Target.EXPIRED})


class Runner:
    """One task per unfinished batch."""

    def __init__(
        self, *, work: Work, clock: Clock, config: Callable[[], Config], batches: BatchStore
    ) -> None:
        self._work = work
        self._clock = clock
        self._config = config
        self._batches = batches
        self._tasks = BatchTasks[Batch](step=self._step, forget=work.forget)

    def start(self) -> None:
        for batch in self._batches.active():
            self.follow(batch)

    async def stop(self) -> None:
        await self._tasks.stop()
        self._work.close()

    def follow(self, batch: Batch) -> None:
        self._tasks.follow(batch)

    def wake(self) -> None:
        """The clock, the configuration or a batch changed: look again now."""
        self._tasks.wake()

    def unpin(self) -> None:
        for batch in self._batches.active():
            batch.pinned = False

    def cancel(self, batch: Batch) -> None:
        self._work.start_canceling(batch)
        self.wake()

    async def advance(self, batch: Batch, to: Target, completed: int | None) -> None:
        """Takes a batch to where a test wants it; `completed` requests have been executed by then."""
        async with self._tasks.lock(batch):
            batch.pinned = batch.pinned or self._config().auto
            if not batch.is_terminal:
                await self._walk(batch, to, completed)
        self.wake()

    async def _step(self, batch: Batch) -> float | None:
        """Does what is due; returns the seconds until more is due (None: only a change brings more)."""
        config, now = self._config(), self._clock.now()
        moving = config.auto and not batch.pinned
        ready_at = batch.created_at + config.batch_seconds
        if batch.status == Status.CANCELING:
            return await self._step_canceling(batch, config, now)
        if now >= batch.expires_at and not (moving and ready_at < batch.expires_at):
            await self._work.end(batch, EXPIRED)
            return 0
        if not moving:
            return batch.expires_at - now
        return await self._step_moving(batch, config, now)

    async def _step_canceling(self, batch: Batch, config: Config, now: float) -> float | None:
        """What is in flight when a batch is canceled may still finish."""
        if config.cancel_seconds is None:
            return None
        due = (batch.cancel_initiated_at or now) + config.cancel_seconds
        if now < due:
            return due - now
        flying = config.cancel_in_flight
        await self._execute(batch, batch.total if flying is None else batch.totals.done + flying)
        await self._work.end(batch, CANCELED)
        return 0

    async def _step_moving(self, batch: Batch, config: Config, now: float) -> float:
        length = EXECUTED_AT * config.batch_seconds
        share = 1.0 if now >= batch.created_at + length else max(now - batch.created_at, 0) / length
        target = int(batch.total * share)
        if batch.totals.done < target:
            await self._work.execute(batch, target)
            return 0
        if share < 1.0:
            return max(length / STEPS, SHORTEST_TICK)
        ready_at = batch.created_at + config.batch_seconds
        if now < ready_at:
            return ready_at - now
        await self._work.end(batch, EXPIRED)
        return 0

    async def _execute(self, batch: Batch, until: int) -> None:
        until = min(until, batch.total)
        while batch.totals.done < until:
            await self._work.execute(batch, until)

    async def _walk(self, batch: Batch, to: Target, completed: int | None) -> None:
        whole = to in WHOLE and batch.status == Status.IN_PROGRESS
        until = batch.total if whole else batch.totals.done
        await self._execute(batch, until if completed is None else completed)
        if to in CANCELS and batch.status != Status.CANCELING:
            self._work.start_canceling(batch)
        if to in ENDS:
            rest = CANCELED if batch.status == Status.CANCELING and to != Target.EXPIRED else EXPIRED
            await self._work.end(batch, rest)
