"""One task per unfinished batch, woken when the clock, the configuration or a batch changes."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

logger = logging.getLogger(__name__)


class Moving(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def is_terminal(self) -> bool: ...


Item = TypeVar("Item", bound=Moving)


class BatchTasks(Generic[Item]):
    def __init__(
        self, *, step: Callable[[Item], Awaitable[float | None]], forget: Callable[[Item], None]
    ) -> None:
        """`step` does what is due and returns the seconds until more is due (None: only a change helps)."""
        self._step = step
        self._forget = forget
        self._locks: dict[str, asyncio.Lock] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    def follow(self, item: Item) -> None:
        task = asyncio.create_task(self._drive(item), name=item.id)
        self._tasks[item.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(item.id, None))

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self) -> None:
        """The clock, the configuration or a batch changed: look again now."""
        self._changed.set()
        self._changed = asyncio.Event()

    def lock(self, item: Item) -> asyncio.Lock:
        """Held during every step; whoever else moves a batch holds it too."""
        return self._locks.setdefault(item.id, asyncio.Lock())

    async def _drive(self, item: Item) -> None:
        try:
            while not item.is_terminal:
                changed = self._changed
                async with self.lock(item):
                    wait = 0.0 if item.is_terminal else await self._step(item)
                if wait is None or wait > 0:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(changed.wait(), wait)
        except Exception:
            logger.exception("batch stopped", extra={"event": "batch_stopped", "batch_id": item.id})
            raise
        finally:
            self._forget(item)
            self._locks.pop(item.id, None)
