"""The loop of a worker: a step when woken or while there is work, else every interval; work in pieces."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from floopy_common.domain.errors import LeaseLost

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

_PIECE = 100
"""Lines of a delivery worked on before other tasks may run: half a millisecond of the line plane, and where
many processes want a core few of the scheduler's slices."""


async def in_pieces(items: Sequence[_T], size: int = _PIECE) -> AsyncIterator[Sequence[_T]]:
    """The items in order, a piece at a time; other tasks run between two."""
    for start in range(0, len(items), size):
        if start:
            await asyncio.sleep(0)
        yield items[start : start + size]


class Loop:
    """Schedules one step; all decisions live in the step, which says whether it did something."""

    def __init__(
        self, name: str, step: Callable[[], Awaitable[bool]], interval: float, *, spacing: float = 0.0
    ) -> None:
        """`spacing`: seconds from one step to the next at least, unless there is more to do at once: what
        wakes the loop meanwhile is for one step. The first of many wakes never waits.
        """
        self.name = name
        self._step = step
        self._interval = interval
        self._spacing = spacing
        self._awake = asyncio.Event()

    def wake(self) -> None:
        """Run the step soon; waking often costs nothing."""
        self._awake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop`; a step that raises is logged and tried again after the interval."""
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                self._awake.clear()
                started = time.monotonic()
                if not await self._once():
                    await self._rest(stopping)
                    await self._space(stopping, started + self._spacing)
        finally:
            stopping.cancel()

    async def _once(self) -> bool:
        try:
            return await self._step()
        except LeaseLost:
            return False
        except asyncio.CancelledError as error:
            if (running := asyncio.current_task()) is not None and running.cancelling():
                raise
            # nobody wants this loop to end: a library has cancelled what the step waits for
            extra = {"event": "step_failed", "loop": self.name}
            _log.error("step was cut off", extra=extra, exc_info=error)
            return False
        except Exception:  # noqa: BLE001 - the loop must outlive any single fault; the log carries it
            _log.exception("step failed", extra={"event": "step_failed", "loop": self.name})
            return False

    async def _rest(self, stopping: asyncio.Task[bool]) -> None:
        woken = asyncio.create_task(self._awake.wait())
        try:
            await asyncio.wait({woken, stopping}, timeout=self._interval, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()

    async def _space(self, stopping: asyncio.Task[bool], until: float) -> None:
        left = until - time.monotonic()
        if left > 0:
            await asyncio.wait({stopping}, timeout=left)


class Bells:
    """Wakes loops by name; one that is not there yet finds its work by itself."""

    def __init__(self) -> None:
        self.loops: dict[str, Loop] = {}

    def hang(self, *loops: Loop) -> None:
        self.loops.update({loop.name: loop for loop in loops})

    def ring(self, name: str) -> Callable[[], None]:
        """A call that wakes the loop `name`."""

        def wake() -> None:
            if name in self.loops:
                self.loops[name].wake()

        return wake
