"""The one way the tests wait: a condition, asked again until it holds or the deadline passes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, TypeVar, overload

import aiohttp

Result = TypeVar("Result")

_PAUSE = 0.02


@overload
async def eventually(
    ask: Callable[[], Awaitable[Result | None]], *, timeout: float = ..., what: str = ...
) -> Result: ...
@overload
async def eventually(
    ask: Callable[[], Result | None], *, timeout: float = ..., what: str = ...
) -> Result: ...
async def eventually(ask: Callable[[], Any], *, timeout: float = 30.0, what: str = "the condition") -> Any:
    """What `ask` answers, awaited if need be, once that is true; AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        answer = ask()
        last = await answer if isawaitable(answer) else answer
        if last:
            return last
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not hold within {timeout:g} s; last answer: {last!r}")
        await asyncio.sleep(_PAUSE)


def eventually_sync(
    ask: Callable[[], Result | None], *, timeout: float = 30.0, what: str = "the condition"
) -> Result:
    """The same in a test without an event loop."""
    return asyncio.run(eventually(ask, timeout=timeout, what=what))


async def is_ready(url: str) -> bool:
    """Whether the service there says that it is ready; False where nobody answers."""
    timeout = aiohttp.ClientTimeout(total=2)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as http, http.get(f"{url}/readyz") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
