"""What is done to a message batch, one step at a time: take in, execute, end.

Requests are worked through in a thread; only the event loop writes records, each step in one transaction.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from floopy_simulator.anthropic.batch_input import Envelope, Plan, read_plan, take_in
from floopy_simulator.anthropic.batches import Batch, BatchStore, Status
from floopy_simulator.anthropic.execution import Execution, Paths
from floopy_simulator.anthropic.request_rules import Rules
from floopy_simulator.clock import Clock
from floopy_simulator.config import Config
from floopy_simulator.journal import Journal

Result = TypeVar("Result")
SLICE = 2_000
"""Requests executed in one go: small enough that several batches and the HTTP side take turns."""


class Work:
    def __init__(
        self,
        *,
        journal: Journal,
        clock: Clock,
        config: Callable[[], Config],
        batches: BatchStore,
        executions: dict[str, int],
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._config = config
        self._batches = batches
        self._executions = executions
        self._plans: dict[str, Plan] = {}
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="requests")

    def close(self) -> None:
        self._pool.shutdown()

    def forget(self, batch: Batch) -> None:
        self._plans.pop(batch.id, None)

    async def take_in(self, batch_id: str) -> Envelope:
        """Checks a create that has come in whole; raises ApiError."""
        body, kept = self._batches.body_path(batch_id), self._batches.input_path(batch_id)
        most = self._config().max_requests
        return await asyncio.to_thread(take_in, body, kept, most)

    def start_canceling(self, batch: Batch) -> None:
        batch.status = Status.CANCELING
        batch.cancel_initiated_at = self._clock.now()
        self._batches.write(batch)

    async def execute(self, batch: Batch, until: int) -> None:
        """One slice, at most up to request `until` of the order."""
        execution = await self._execution(batch)
        totals, until = batch.totals, min(until, batch.totals.done + SLICE)
        batch.totals, fresh = await self._in_thread(lambda: execution.run(totals, until, self._executions))
        with self._journal.transaction():
            self._journal.write_executions(fresh)
            self._batches.write(batch)

    async def end(self, batch: Batch, rest: str) -> None:
        """Makes the batch terminal and its results visible; what was not executed ends as `rest`."""
        if batch.totals.done < batch.total:
            execution = await self._execution(batch)
            totals = batch.totals
            batch.totals = await self._in_thread(lambda: execution.abandon(totals, rest))
        batch.status = Status.ENDED
        batch.ended_at = self._clock.now()
        self._batches.write(batch)
        self.forget(batch)
        self._batches.input_path(batch.id).unlink(missing_ok=True)

    async def _plan(self, batch: Batch) -> Plan:
        if batch.id not in self._plans:
            config = self._config()
            seed = f"{config.seed}:{batch.seq}" if config.order == "shuffled" else None
            path = self._batches.input_path(batch.id)
            self._plans[batch.id] = await self._in_thread(lambda: read_plan(path, seed))
        return self._plans[batch.id]

    async def _execution(self, batch: Batch) -> Execution:
        rules = Rules(batch.version, batch.betas, self._config().anthropic_models, batch=True)
        paths = Paths(
            self._batches.input_path(batch.id),
            self._batches.results_path(batch),
            self._batches.ledger_path(batch),
        )
        plan = await self._plan(batch)
        return Execution(batch_id=batch.id, rules=rules, plan=plan, paths=paths)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)
