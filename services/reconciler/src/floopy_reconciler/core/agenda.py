"""What is worked on next: batches that something in this process has moved, and several at a time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager

from floopy_common.domain.errors import LeaseLost
from floopy_reconciler.ports import Turns

AT_ONCE = 32
"""Batches that a loop works on side by side: while one waits for the database the others go on."""


async def side_by_side(works: Iterable[Awaitable[None]]) -> None:
    """Await all, none of which another's failure stops; then raise what failed.

    LeaseLost, which only says that somebody else is at it, where nothing worse happened.
    """
    results = await asyncio.gather(*works, return_exceptions=True)
    failures = [result for result in results if isinstance(result, Exception)]
    faults = [failure for failure in failures if not isinstance(failure, LeaseLost)]
    if len(faults) > 1:
        raise ExceptionGroup("several batches failed", faults)
    for failure in faults or failures:
        raise failure


class Agenda:
    """Batches that want a turn, in the order of asking, each once.

    It is in memory only: what a crash loses of it has its regular turn.
    """

    def __init__(self) -> None:
        self._asked: dict[str, None] = {}

    def ask(self, batch_id: str) -> None:
        self._asked.setdefault(batch_id)

    def __bool__(self) -> bool:
        return bool(self._asked)

    def take(self, limit: int) -> list[str]:
        """The batches asked for first."""
        taken = list(self._asked)[:limit]
        for batch_id in taken:
            del self._asked[batch_id]
        return taken


@asynccontextmanager
async def open_agenda(turns: Turns) -> AsyncIterator[Agenda]:
    """An agenda whose rest others take over; first of all every batch has a turn, for those who died."""
    await turns.all_due()
    agenda = Agenda()
    try:
        yield agenda
    finally:
        while left := agenda.take(AT_ONCE):
            await side_by_side(turns.nudge(batch_id) for batch_id in left)
