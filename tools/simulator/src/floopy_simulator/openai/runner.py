"""Moves batches through their states as the clock or a test says."""

import asyncio
import contextlib
import logging
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from floopy_simulator.clock import Clock
from floopy_simulator.config import Config
from floopy_simulator.journal import Journal
from floopy_simulator.openai.batches import Batch, BatchStore, LineError, Status
from floopy_simulator.openai.execution import Execution, Paths
from floopy_simulator.openai.files import THIRTY_DAYS, FileStore
from floopy_simulator.openai.validation import Plan, Rules, validate

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

SLICE = 2_000
"""Lines executed in one go: small enough that several batches and the HTTP side take turns."""
SHORTEST_TICK = 0.02
STEPS = 20
"""Progress of a batch is shown in about this many steps."""
VALIDATED_AT, EXECUTED_AT = 0.15, 0.85
"""Shares of `batch_seconds` after which validation and execution are over."""


class Runner:
    """One task per unfinished batch; the records are written by the event loop only."""

    def __init__(
        self,
        *,
        journal: Journal,
        clock: Clock,
        config: Callable[[], Config],
        files: FileStore,
        batches: BatchStore,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._config = config
        self._files = files
        self._batches = batches
        self._plans: dict[str, Plan] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lines")
        self.executions = journal.read_executions()

    def start(self) -> None:
        for batch in self._batches.active():
            self.follow(batch)

    async def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._pool.shutdown()

    def follow(self, batch: Batch) -> None:
        task = asyncio.create_task(self._drive(batch), name=batch.id)
        self._tasks[batch.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(batch.id, None))

    def wake(self) -> None:
        """The clock, the configuration or a batch changed: look again now."""
        self._changed.set()
        self._changed = asyncio.Event()

    def unpin(self) -> None:
        for batch in self._batches.active():
            batch.pinned = False

    def cancel(self, batch: Batch) -> None:
        batch.enter(Status.CANCELLING, self._clock.now())
        self._batches.write(batch)
        self.wake()

    async def _drive(self, batch: Batch) -> None:
        try:
            while not batch.is_terminal:
                changed = self._changed
                async with self._lock(batch):
                    wait = await self._step(batch)
                if wait is None or wait > 0:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(changed.wait(), wait)
        except Exception:
            logger.exception("batch stopped", extra={"event": "batch_stopped", "batch_id": batch.id})
            raise
        finally:
            self._plans.pop(batch.id, None)
            self._locks.pop(batch.id, None)

    def _lock(self, batch: Batch) -> asyncio.Lock:
        return self._locks.setdefault(batch.id, asyncio.Lock())

    async def _step(self, batch: Batch) -> float | None:
        """Does what is due; returns the seconds until more is due (None: only a change brings more)."""
        config, now = self._config(), self._clock.now()
        moving = config.auto and not batch.pinned
        ready_at = batch.created_at + config.batch_seconds
        match batch.status:
            case Status.CANCELLING:
                return await self._step_cancelling(batch, config, now)
            case _ if now >= batch.expires_at and not (moving and ready_at < batch.expires_at):
                await self._end_early(batch, Status.EXPIRED, "batch_expired")
                return None
            case _ if not moving:
                await self._plan(batch)
                return batch.expires_at - now
            case Status.VALIDATING:
                await self._plan(batch)
                due = batch.created_at + VALIDATED_AT * config.batch_seconds
                if now < due:
                    return due - now
                await self._leave_validation(batch)
                return 0
            case Status.IN_PROGRESS:
                return await self._step_in_progress(batch, config, now)
            case _:
                if now < ready_at:
                    return ready_at - now
                self._publish(batch, Status.COMPLETED)
                return None

    async def _step_cancelling(self, batch: Batch, config: Config, now: float) -> float | None:
        if config.cancel_seconds is None:
            return None
        due = batch.times[Status.CANCELLING] + config.cancel_seconds
        if now < due:
            return due - now
        await self._end_early(batch, Status.CANCELLED, "batch_cancelled")
        return None

    async def _step_in_progress(self, batch: Batch, config: Config, now: float) -> float:
        begin = batch.created_at + VALIDATED_AT * config.batch_seconds
        length = (EXECUTED_AT - VALIDATED_AT) * config.batch_seconds
        share = 1.0 if now >= begin + length else max(now - begin, 0) / length
        target = int(batch.total * share)
        if batch.totals.done < target:
            await self._execute(batch, min(target, batch.totals.done + SLICE))
            return 0
        if share >= 1.0:
            self._finalize(batch)
            return 0
        return max(length / STEPS, SHORTEST_TICK)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def _plan(self, batch: Batch) -> Plan:
        """Made again after a restart: it is a pure function of the input and the batch."""
        if batch.id not in self._plans:
            config = self._config()
            seed = f"{config.seed}:{batch.seq}" if config.order == "shuffled" else None
            rules = Rules(batch.endpoint, config.models, config.max_lines, seed)
            path = self._batches.input_path(batch)
            if not path.exists():
                message = (
                    f"Cannot find file {batch.input_file_id}, or organization does not have access to it."
                )
                return self._remember(batch, _refused(LineError("invalid_request", message, "file_id")))
            self._remember(batch, await self._in_thread(lambda: validate(path, rules)))
        return self._plans[batch.id]

    def _remember(self, batch: Batch, plan: Plan) -> Plan:
        self._plans[batch.id] = plan
        return plan

    async def _leave_validation(self, batch: Batch) -> None:
        plan = await self._plan(batch)
        batch.model = plan.model
        errors = plan.errors or self._over_the_limit(batch, plan)
        if errors:
            self._fail(batch, errors)
            return
        batch.total, batch.tokens = plan.total, plan.tokens
        batch.enter(Status.IN_PROGRESS, self._clock.now())
        self._batches.write(batch)

    def _over_the_limit(self, batch: Batch, plan: Plan) -> list[LineError]:
        limit = self._config().enqueued_token_limit
        if limit is None or self._batches.enqueued_tokens(batch) + plan.tokens <= limit:
            return []
        message = (
            f"Enqueued token limit reached for {plan.model} in organization org-simulator. Limit: {limit} enqueued "
            "tokens. Please try again once some in_progress batches have been completed."
        )
        return [LineError("token_limit_exceeded", message)]

    def _fail(self, batch: Batch, errors: list[LineError]) -> None:
        batch.errors = errors
        batch.enter(Status.FAILED, self._clock.now())
        self._batches.write(batch)
        self._clean(batch)

    async def _execute(self, batch: Batch, until: int) -> None:
        execution = await self._execution(batch)
        totals = batch.totals
        batch.totals, fresh = await self._in_thread(lambda: execution.run(totals, until, self.executions))
        batch.note_counts(self._clock.now())
        with self._journal.transaction():
            self._journal.write_executions(fresh)
            self._batches.write(batch)

    async def _execution(self, batch: Batch) -> Execution:
        return Execution(
            batch_id=batch.id,
            endpoint=batch.endpoint,
            created=int(batch.created_at),
            plan=await self._plan(batch),
            paths=Paths(
                self._batches.input_path(batch),
                self._files.path(batch.output_file_id),
                self._files.path(batch.error_file_id),
                self._batches.ledger_path(batch),
            ),
        )

    def _finalize(self, batch: Batch) -> None:
        batch.enter(Status.FINALIZING, self._clock.now())
        self._batches.write(batch)

    async def _end_early(self, batch: Batch, status: Status, code: str) -> None:
        if not batch.total:
            plan = await self._plan(batch)
            batch.total = 0 if plan.errors else plan.total
            batch.model = plan.model
        if batch.totals.done < batch.total:
            execution = await self._execution(batch)
            totals = batch.totals
            batch.totals = await self._in_thread(lambda: execution.abandon(totals, code))
            batch.note_counts(self._clock.now())
        self._publish(batch, status)

    def _publish(self, batch: Batch, status: Status) -> None:
        """One transaction makes the batch terminal and its files visible."""
        lifetime = batch.output_lifetime or THIRTY_DAYS
        with self._journal.transaction():
            if batch.totals.output_bytes:
                name = f"{batch.id}_output.jsonl"
                self._files.add(
                    file_id=batch.output_file_id,
                    key=batch.key,
                    filename=name,
                    purpose="batch_output",
                    origin="output",
                    lifetime=lifetime,
                )
            if batch.totals.error_bytes:
                name = f"{batch.id}_error.jsonl"
                self._files.add(
                    file_id=batch.error_file_id,
                    key=batch.key,
                    filename=name,
                    purpose="batch_output",
                    origin="error",
                    lifetime=lifetime,
                )
            batch.enter(status, self._clock.now())
            self._batches.write(batch)
        self._clean(batch)
        self.wake()

    def _clean(self, batch: Batch) -> None:
        self._batches.input_path(batch).unlink(missing_ok=True)
        for file_id, size in (
            (batch.output_file_id, batch.totals.output_bytes),
            (batch.error_file_id, batch.totals.error_bytes),
        ):
            if not size:
                self._files.path(file_id).unlink(missing_ok=True)

    async def advance(self, batch: Batch, to: Status, completed: int | None, errors: list[LineError]) -> None:
        """Takes a batch through its states up to `to`; `completed` lines are executed on the way there."""
        async with self._lock(batch):
            batch.pinned = batch.pinned or self._config().auto
            if to == Status.FAILED:
                self._fail(batch, errors or [LineError("server_error", "The batch could not be processed.")])
            else:
                await self._walk(batch, to, completed)
        self.wake()

    async def _walk(self, batch: Batch, to: Status, completed: int | None) -> None:
        if batch.status == Status.VALIDATING and to not in {Status.VALIDATING, Status.CANCELLING}:
            await self._leave_validation(batch)
        if batch.is_terminal or to == Status.VALIDATING:
            return
        whole = batch.total if to in {Status.FINALIZING, Status.COMPLETED} else batch.totals.done
        until = min(whole if completed is None else completed, batch.total)
        while batch.totals.done < until and batch.status == Status.IN_PROGRESS:
            await self._execute(batch, min(until, batch.totals.done + SLICE))
        match to:
            case Status.FINALIZING | Status.COMPLETED:
                if batch.status == Status.IN_PROGRESS:
                    self._finalize(batch)
                if to == Status.COMPLETED:
                    self._publish(batch, to)
            case Status.EXPIRED:
                await self._end_early(batch, to, "batch_expired")
            case Status.CANCELLED:
                if batch.status != Status.CANCELLING:
                    batch.enter(Status.CANCELLING, self._clock.now())
                await self._end_early(batch, to, "batch_cancelled")
            case Status.CANCELLING:
                batch.enter(to, self._clock.now())
                self._batches.write(batch)
            case _:
                self._batches.write(batch)


def _refused(error: LineError) -> Plan:
    return Plan(array("Q"), array("I"), array("I"), None, 0, [error])
