"""The one way the tests wait: a condition, asked again until it holds or the deadline passes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Result = TypeVar("Result")

_PAUSE = 0.02


async def eventually(
    ask: Callable[[], Awaitable[Result | None]], *, timeout: float = 30.0, what: str = "the condition"
) -> Result:
    """What `ask` answers once that is neither None nor False; AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    last: object = None
    while True:
        last = await ask()
        if last:
            return last
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not hold within {timeout:g} s; last answer: {last!r}")
        await asyncio.sleep(_PAUSE)
