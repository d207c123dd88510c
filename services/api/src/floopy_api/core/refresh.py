"""A fresh look for whoever reads a batch: asked for once, however many ask, and waited for only so long."""

import asyncio

from floopy_api.core.authentication import TimedCache
from floopy_api.ports import Document, Looks, Monotonic, Summaries
from floopy_common.domain.batch import BatchStatus

_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.05
"""A look takes tens of milliseconds; asking the database oftener would only slow it down."""

_REMEMBERED = 10_000
"""Batches whose looks are fresh."""


class Refresher:
    """Coalesces per batch within this process; `after` and `wait` are seconds."""

    def __init__(
        self, looks: Looks, summaries: Summaries, *, after: float, wait: float, monotonic: Monotonic
    ) -> None:
        self._looks = looks
        self._summaries = summaries
        self._after = after
        self._wait = wait
        self._monotonic = monotonic
        self._running: dict[str, asyncio.Task[None]] = {}
        # half: a look that was fresh enough when it was asked about may have been that old already
        self._unneeded: TimedCache[bool] = TimedCache(after / 2, _REMEMBERED, monotonic)

    def is_due(self, batch: Document) -> bool:
        """Whether a provider may know more than the batch does."""
        return batch.get("plan") is not None and not BatchStatus(batch["status"]).is_terminal

    async def refresh(self, batch_id: str) -> None:
        """Return once the batch is as fresh as it can be, or when the time to wait is over."""
        if self._wait == 0 or self._unneeded.get(batch_id):
            return
        deadline = self._monotonic() + self._wait
        running = self._running.get(batch_id)
        if running is not None:
            # it may rest on a look that began before this question; the next one does not
            await asyncio.wait({running}, timeout=self._wait)
        task = self._running.get(batch_id) or self._start(batch_id)
        left = max(0.0, deadline - self._monotonic())
        done, _ = await asyncio.wait({task}, timeout=left)
        for finished in done:
            finished.result()

    def _start(self, batch_id: str) -> asyncio.Task[None]:
        task = asyncio.create_task(self._look(batch_id))
        self._running[batch_id] = task
        task.add_done_callback(lambda done: self._forget(batch_id, done))
        return task

    def _forget(self, batch_id: str, done: asyncio.Task[None]) -> None:
        self._running.pop(batch_id, None)
        if not done.cancelled():
            done.exception()  # those who wait have it; nobody waiting is no fault

    async def _look(self, batch_id: str) -> None:
        deadline = self._monotonic() + self._wait
        asked_at = await self._looks.ask(batch_id, self._after / 2)
        if asked_at is None:
            self._unneeded.keep(batch_id, True)
            return
        pause = _FIRST_PAUSE
        while not await self._looks.is_answered(batch_id, asked_at):
            if self._monotonic() >= deadline:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        # the reconciler does this too, but perhaps a moment after the look shows
        await self._summaries.refresh(batch_id)
        self._unneeded.keep(batch_id, True)
