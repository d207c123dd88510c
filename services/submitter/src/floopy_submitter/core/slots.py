"""Slots: a bounded number of jobs at a time, shared out so that the least busy account comes next."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
from typing import Any

from floopy_common.domain.errors import LeaseLost
from floopy_submitter.ports import Document

_log = logging.getLogger(__name__)

Find = Callable[[Collection[str]], Awaitable[Document | None]]
"""The next piece of work, except that of the given accounts."""

FindMany = Callable[[int, Collection[str]], Awaitable[list[Document]]]
"""So many pieces of work, the next first, except those of the given accounts."""

Weighs = Callable[[Document], bool]
"""Whether a piece of work is one of which only a few may run."""

_LOOK = 64
"""Pieces of work that are looked through at once."""


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
    def is_busy(self) -> bool:
        """Any job is running."""
        return bool(self._running)

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

    async def offered(self, find: FindMany, without: Collection[str] = ()) -> tuple[list[Document], bool]:
        """Work enough for `share` to choose from, and whether there may be more of it."""
        busy = Counter(self._running.values())
        full = {account for account, jobs in busy.items() if jobs >= self._per_account}
        rows = await find(_LOOK, full | set(without))
        more = may_hide = len(rows) == _LOOK
        while may_hide:
            accounts = {row["account_id"] for row in rows}
            if len(accounts - busy.keys()) >= self.free:
                break
            # of an account that has much to do, so much is seen that it may hide one that has less running
            found = await find(_LOOK, accounts | full | set(without))
            rows += found
            may_hide = len(found) == _LOOK
        return rows, more

    def share(
        self, rows: Iterable[Document], alone: Collection[str], weighs: Weighs, room: int
    ) -> list[Document]:
        """Those of `rows` to begin with now, each time of the account with the fewest jobs that has any left.

        One job at a time for each account of `alone`, and of those that weigh something no more than `room`.
        """
        busy = Counter(self._running.values())
        queues: dict[str, deque[tuple[int, Document]]] = {}
        for place, row in enumerate(rows):
            queues.setdefault(row["account_id"], deque()).append((place, row))
        chosen: list[Document] = []
        while len(chosen) < self.free:
            open_to: list[tuple[int, int, str]] = []
            for account, queue in queues.items():
                while queue and not room and weighs(queue[0][1]):
                    queue.popleft()
                if queue and busy[account] < (1 if account in alone else self._per_account):
                    open_to.append((busy[account], queue[0][0], account))
            if not open_to:
                break
            account = min(open_to)[2]
            _, row = queues[account].popleft()
            busy[account] += 1
            room -= weighs(row)
            chosen.append(row)
        return chosen

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
