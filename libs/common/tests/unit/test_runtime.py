"""A process ends when one of its loops does, and says which and why."""

import asyncio

import pytest

from floopy_common.chassis.probes import Probes
from floopy_common.chassis.runtime import Runtime


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()


async def _dropped() -> None:
    dropped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    dropped.cancel()
    await dropped


async def _failing() -> None:
    raise LookupError("no such topic")


async def test_the_error_of_the_first_that_fails_ends_the_process() -> None:
    async with asyncio.timeout(5):
        with pytest.raises(LookupError, match="no such topic"):
            await Runtime("service", Probes()).run(_forever(), _failing())


async def test_what_a_library_cut_off_is_named() -> None:
    async with asyncio.timeout(5):
        with pytest.raises(RuntimeError, match=r"_dropped.* was cancelled"):
            await Runtime("service", Probes()).run(_forever(), _dropped())


async def test_who_is_to_stop_stops_the_others() -> None:
    runtime = Runtime("service", Probes())

    async def stopping() -> None:
        runtime.stop.set()

    async def waiting() -> None:
        await runtime.stop.wait()

    async with asyncio.timeout(5):
        await runtime.run(waiting(), stopping())
