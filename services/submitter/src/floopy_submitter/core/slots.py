"""Slots: a bounded number of jobs at a time, shared out so that the least busy account comes next."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any

from floopy_common.domain.errors import LeaseLost
from floopy_submitter.ports import Document

_log = logging.getLogger(__name__)

Find = Callable[[Collection[str]], Awaitable[Document | None]]
"""The next piece of work, except that of the given accounts."""


class Slots:
    """Runs jobs beside each other; one slot is out of reach of any single account while there are two."""

    def __init__(self, size: int, on_free: Callable[[], None]) -> None:
        self._size = size
        self._per_account = max(1, size - 1)
        self._on_free = on_free
        self._running: dict[asyncio.Task[None], str] = {}

    @property
    def free(self) -> int:
        return self._size - len(self._running)

    @property
    def accounts(self) -> set[str]:
        """Those with a running job."""
        return set(self._running.values())

    async def next_from(self, find: Find, without: Collection[str] = ()) -> Document | None:
        """Work of the account with the fewest running jobs among those that have any work."""
        busy = Counter(self._running.values())
        for level in range(self._per_account):
            above = {account for account, jobs in busy.items() if jobs > level}
            found = await find(above | set(without))
            if found is not None or not above:
                return found
        return None

    def start(self, account_id: str, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(job)
        self._running[task] = account_id
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            level = logging.INFO if isinstance(error, LeaseLost) else logging.ERROR
            _log.log(level, "job failed", exc_info=error, extra={"event": "job_failed"})
        self._on_free()

    async def close(self, grace: float) -> None:
        """Let the jobs finish for `grace` seconds, then stop them where they stand: anybody can go on."""
        running = set(self._running)
        if running:
            _, late = await asyncio.wait(running, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
