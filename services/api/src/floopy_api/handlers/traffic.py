"""Requests under way, so that stopping can wait for them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Traffic:
    """Counts requests from their head to the end of their handler."""

    def __init__(self) -> None:
        self._under_way = 0
        self._none_left = asyncio.Event()
        self.is_ending = False

    @contextmanager
    def one_more(self) -> Iterator[None]:
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._look()

    async def end(self, timeout: float) -> None:
        """Return when no request is under way, at the latest after `timeout` seconds.

        Meanwhile every answer tells its client to come back on another connection.
        """
        self.is_ending = True
        self._look()
        try:
            async with asyncio.timeout(timeout):
                await self._none_left.wait()
        except TimeoutError:
            return  # what is left is cut off, as its client would see it after a crash

    def _look(self) -> None:
        if self.is_ending and self._under_way == 0:
            self._none_left.set()
