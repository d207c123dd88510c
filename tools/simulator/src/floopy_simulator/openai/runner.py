"""Moves batches through their states as the clock or a test says."""

from collections.abc import Callable

from floopy_simulator.batch_tasks import BatchTasks
from floopy_simulator.clock import Clock
from floopy_simulator.config import Config
from floopy_simulator.openai.batches import Batch, BatchStore, LineError, Status
from floopy_simulator.openai.work import CANCELLED, EXPIRED, Work

SHORTEST_TICK = 0.02
STEPS = 20
"""Progress of a batch is shown in about this many steps."""
VALIDATED_AT, EXECUTED_AT = 0.15, 0.85
"""Shares of `batch_seconds` after which validation and execution are over."""


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
        self._work.enter(batch, Status.CANCELLING)
        self.wake()

    async def advance(self, batch: Batch, to: Status, completed: int | None, errors: list[LineError]) -> None:
        """Takes a batch through its states up to `to`; `completed` lines are executed on the way there."""
        async with self._tasks.lock(batch):
            batch.pinned = batch.pinned or self._config().auto
            if to == Status.FAILED:
                message = "The batch could not be processed."
                self._work.fail(batch, errors or [LineError("server_error", message)])
            else:
                await self._walk(batch, to, completed)
        self.wake()

    async def _step(self, batch: Batch) -> float | None:
        """Does what is due; returns the seconds until more is due (None: only a change brings more)."""
        config, now = self._config(), self._clock.now()
        moving = config.auto and not batch.pinned
        ready_at = batch.created_at + config.batch_seconds
        if batch.status == Status.CANCELLING:
            return await self._step_cancelling(batch, config, now)
        if now >= batch.expires_at and not (moving and ready_at < batch.expires_at):
            await self._work.end_early(batch, Status.EXPIRED, EXPIRED)
        elif not moving:
            await self._work.plan(batch)
            return batch.expires_at - now
        elif batch.status == Status.VALIDATING:
            return await self._step_validating(batch, config, now)
        elif batch.status == Status.IN_PROGRESS:
            return await self._step_in_progress(batch, config, now)
        elif now < ready_at:
            return ready_at - now
        else:
            self._work.publish(batch, Status.COMPLETED)
        return 0

    async def _step_cancelling(self, batch: Batch, config: Config, now: float) -> float | None:
        if config.cancel_seconds is None:
            return None
        due = batch.times[Status.CANCELLING] + config.cancel_seconds
        if now < due:
            return due - now
        await self._work.end_early(batch, Status.CANCELLED, CANCELLED)
        return 0

    async def _step_validating(self, batch: Batch, config: Config, now: float) -> float:
        await self._work.plan(batch)
        due = batch.created_at + VALIDATED_AT * config.batch_seconds
        if now < due:
            return due - now
        await self._work.leave_validation(batch)
        return 0

    async def _step_in_progress(self, batch: Batch, config: Config, now: float) -> float:
        begin = batch.created_at + VALIDATED_AT * config.batch_seconds
        length = (EXECUTED_AT - VALIDATED_AT) * config.batch_seconds
        share = 1.0 if now >= begin + length else max(now - begin, 0) / length
        target = int(batch.total * share)
        if batch.totals.done < target:
            await self._work.execute(batch, target)
            return 0
        if share >= 1.0:
            self._work.enter(batch, Status.FINALIZING)
            return 0
        return max(length / STEPS, SHORTEST_TICK)

    async def _walk(self, batch: Batch, to: Status, completed: int | None) -> None:
        if batch.status == Status.VALIDATING and to not in {Status.VALIDATING, Status.CANCELLING}:
            await self._work.leave_validation(batch)
        if batch.is_terminal or to == Status.VALIDATING:
            return
        whole = batch.total if to in {Status.FINALIZING, Status.COMPLETED} else batch.totals.done
        until = min(whole if completed is None else completed, batch.total)
        while batch.totals.done < until and batch.status == Status.IN_PROGRESS:
            await self._work.execute(batch, until)
        await self._arrive(batch, to)

    async def _arrive(self, batch: Batch, to: Status) -> None:
        if to in {Status.FINALIZING, Status.COMPLETED} and batch.status == Status.IN_PROGRESS:
            self._work.enter(batch, Status.FINALIZING)
        if to in {Status.CANCELLING, Status.CANCELLED} and batch.status != Status.CANCELLING:
            self._work.enter(batch, Status.CANCELLING)
        if to == Status.COMPLETED:
            self._work.publish(batch, to)
        elif to == Status.EXPIRED:
            await self._work.end_early(batch, to, EXPIRED)
        elif to == Status.CANCELLED:
            await self._work.end_early(batch, to, CANCELLED)
