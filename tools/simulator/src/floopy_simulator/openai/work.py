"""What is done to a batch, one step at a time: validate, execute, abandon, publish.

Lines are worked through in a thread; only the event loop writes records, each step in one transaction.
"""

import asyncio
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

from floopy_simulator.clock import Clock
from floopy_simulator.config import Config
from floopy_simulator.journal import Journal
from floopy_simulator.openai.batches import Batch, BatchStore, LineError, Status
from floopy_simulator.openai.execution import Execution, Paths
from floopy_simulator.openai.files import THIRTY_DAYS, FileStore
from floopy_simulator.openai.validation import Plan, Rules, validate

Result = TypeVar("Result")
SLICE = 2_000
"""Lines executed in one go: small enough that several batches and the HTTP side take turns."""
EXPIRED, CANCELLED = "batch_expired", "batch_cancelled"


class Work:
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
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lines")
        self.executions = journal.read_executions()
        """How often each scripted body has been executed; shared with the synchronous endpoints."""

    def close(self) -> None:
        self._pool.shutdown()

    def forget(self, batch: Batch) -> None:
        self._plans.pop(batch.id, None)

    async def plan(self, batch: Batch) -> Plan:
        """Made again after a restart: it is a pure function of the input and the batch."""
        if batch.id not in self._plans:
            config = self._config()
            seed = f"{config.seed}:{batch.seq}" if config.order == "shuffled" else None
            rules = Rules(batch.endpoint, config.models, config.max_lines, seed)
            path = self._batches.input_path(batch)
            if path.exists():
                self._plans[batch.id] = await self._in_thread(lambda: validate(path, rules))
            else:
                self._plans[batch.id] = _no_such_file(batch.input_file_id)
        return self._plans[batch.id]

    async def leave_validation(self, batch: Batch) -> None:
        """To `in_progress`, or to `failed` with what is wrong."""
        plan = await self.plan(batch)
        if batch.status != Status.VALIDATING:
            return  # cancelled while it was being validated
        batch.model = plan.model
        errors = plan.errors or self._over_the_limit(batch, plan)
        if errors:
            self.fail(batch, errors)
            return
        batch.total, batch.tokens = plan.total, plan.tokens
        self.enter(batch, Status.IN_PROGRESS)

    def enter(self, batch: Batch, status: Status) -> None:
        batch.enter(status, self._clock.now())
        self._batches.write(batch)

    def fail(self, batch: Batch, errors: list[LineError]) -> None:
        batch.errors = errors
        self.enter(batch, Status.FAILED)
        self._clean(batch)

    async def execute(self, batch: Batch, until: int) -> None:
        """One slice, at most up to line `until` of the order."""
        execution = await self._execution(batch)
        totals, until = batch.totals, min(until, batch.totals.done + SLICE)
        batch.totals, fresh = await self._in_thread(lambda: execution.run(totals, until, self.executions))
        batch.note_counts(self._clock.now())
        with self._journal.transaction():
            self._journal.write_executions(fresh)
            self._batches.write(batch)

    async def end_early(self, batch: Batch, status: Status, code: str) -> None:
        """Keeps what has been executed; the rest become lines of the error file."""
        if not batch.total:
            plan = await self.plan(batch)
            batch.model, batch.total = plan.model, 0 if plan.errors else plan.total
        if batch.totals.done < batch.total:
            execution = await self._execution(batch)
            totals = batch.totals
            batch.totals = await self._in_thread(lambda: execution.abandon(totals, code))
            batch.note_counts(self._clock.now())
        self.publish(batch, status)

    def publish(self, batch: Batch, status: Status) -> None:
        """One transaction makes the batch terminal and its files visible."""
        with self._journal.transaction():
            if batch.totals.output_bytes:
                self._add_file(batch, batch.output_file_id, "output")
            if batch.totals.error_bytes:
                self._add_file(batch, batch.error_file_id, "error")
            self.enter(batch, status)
        self._clean(batch)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def _execution(self, batch: Batch) -> Execution:
        return Execution(
            batch_id=batch.id,
            endpoint=batch.endpoint,
            created=int(batch.created_at),
            plan=await self.plan(batch),
            paths=Paths(
                self._batches.input_path(batch),
                self._files.path(batch.output_file_id),
                self._files.path(batch.error_file_id),
                self._batches.ledger_path(batch),
            ),
        )

    def _over_the_limit(self, batch: Batch, plan: Plan) -> list[LineError]:
        limit = self._config().enqueued_token_limit
        if limit is None or self._batches.enqueued_tokens(batch) + plan.tokens <= limit:
            return []
        message = (
            f"Enqueued token limit reached for {plan.model} in organization org-simulator. "
            f"Limit: {limit:,} enqueued tokens. "
            "Please try again once some in_progress batches have been completed."
        )
        return [LineError("token_limit_exceeded", message)]

    def _add_file(self, batch: Batch, file_id: str, origin: Literal["output", "error"]) -> None:
        self._files.add(
            file_id=file_id,
            key=batch.key,
            filename=f"{batch.id}_{origin}.jsonl",
            purpose="batch_output",
            origin=origin,
            lifetime=batch.output_lifetime or THIRTY_DAYS,
        )

    def _clean(self, batch: Batch) -> None:
        self.forget(batch)
        self._batches.input_path(batch).unlink(missing_ok=True)
        for file_id, size in (
            (batch.output_file_id, batch.totals.output_bytes),
            (batch.error_file_id, batch.totals.error_bytes),
        ):
            if not size or batch.status == Status.FAILED:
                self._files.path(file_id).unlink(missing_ok=True)


def _no_such_file(file_id: str) -> Plan:
    message = f"Cannot find file {file_id}, or organization org-simulator does not have access to it."
    error = LineError("invalid_request", message, "file_id")
    return Plan(array("Q"), array("I"), array("I"), None, 0, [error])
