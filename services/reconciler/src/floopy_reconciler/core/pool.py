"""Jobs beside each other, no more than there is room for."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from floopy_common.domain.errors import LeaseLost

_log = logging.getLogger(__name__)


class Pool:
    """Runs a bounded number of jobs, of any one account no more than a share of it."""

    def __init__(
        self, size: int, per_account: int, on_free: Callable[[], None], *, wake_from: int = 1
    ) -> None:
        """`on_free` is called when a job has ended and there is room for `wake_from`."""
        self._size = size
        self._per_account = per_account
        self._on_free = [on_free]
        self._wake_from = wake_from
        self._running: set[asyncio.Task[None]] = set()
        self._accounts: Counter[str] = Counter()
        self._closing = False

    def when_free(self, call: Callable[[], None]) -> None:
        """Have this called as well."""
        self._on_free.append(call)

    @property
    def free(self) -> int:
        return self._size - len(self._running)

    def saturated(self) -> list[str]:
        """Accounts that have all the jobs they may have."""
        return [account for account, jobs in self._accounts.items() if jobs >= self._per_account]

    def jobs_of(self, account_id: str) -> int:
        return self._accounts[account_id]

    def room_for(self, account_id: str) -> int:
        """How many more jobs of the account fit."""
        return max(0, min(self.free, self._per_account - self._accounts[account_id]))

    def has_room_for(self, account_id: str) -> bool:
        return self.room_for(account_id) > 0

    def start(self, account_id: str, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(job)
        self._running.add(task)
        self._accounts[account_id] += 1
        task.add_done_callback(lambda done: self._ended(done, account_id))

    def _ended(self, task: asyncio.Task[None], account_id: str) -> None:
        self._running.discard(task)
        self._accounts[account_id] -= 1
        self._accounts += Counter()
        if not task.cancelled() and (error := task.exception()) is not None:
            level = logging.INFO if isinstance(error, LeaseLost) else logging.ERROR
            _log.log(level, "job failed", exc_info=error, extra={"event": "job_failed"})
        if self.free >= self._wake_from and not self._closing:
            for call in self._on_free:
                call()

    async def close(self) -> None:
        """Stop every job where it stands; each can be taken up again by anybody."""
        self._closing = True
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._closing = False


@dataclass(frozen=True)
class Pools:
    """Looks are quick and many, downloads slow and few: neither waits for the other."""

    looks: Pool
    listings: Pool
    downloads: Pool
    small_downloads: Pool

    async def close(self) -> None:
        await self.looks.close()
        await self.listings.close()
        await self.downloads.close()
        await self.small_downloads.close()
