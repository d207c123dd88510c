"""Loops run while there is work, rest otherwise, and survive a step that fails."""

import asyncio

import pytest

from floopy_common.chassis.loop import Loop


async def test_loop_runs_on_while_the_step_finds_work() -> None:
    stop = asyncio.Event()
    left = 5

    async def step() -> bool:
        nonlocal left
        left -= 1
        if left == 0:
            stop.set()
        return left > 0

    async with asyncio.timeout(5):
        await Loop("work", step, interval=3600).run(stop)

    assert left == 0


async def test_wake_ends_the_rest() -> None:
    stop = asyncio.Event()
    runs: asyncio.Queue[None] = asyncio.Queue()

    async def step() -> bool:
        runs.put_nowait(None)
        return False

    loop = Loop("idle", step, interval=3600)
    running = asyncio.create_task(loop.run(stop))
    async with asyncio.timeout(5):
        await runs.get()
        loop.wake()
        await runs.get()
        stop.set()
        await running


async def test_a_failing_step_does_not_end_the_loop() -> None:
    stop = asyncio.Event()
    calls = 0

    async def step() -> bool:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError("once")
        stop.set()
        return False

    async with asyncio.timeout(5):
        await Loop("faulty", step, interval=0.01).run(stop)

    assert calls == 2


async def test_a_step_that_a_library_cut_off_does_not_end_the_loop() -> None:
    stop = asyncio.Event()
    calls = 0

    async def step() -> bool:
        nonlocal calls
        calls += 1
        if calls == 1:
            dropped: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            dropped.cancel()
            return await dropped
        stop.set()
        return False

    async with asyncio.timeout(5):
        await Loop("cut off", step, interval=0.01).run(stop)

    assert calls == 2


async def test_a_loop_that_is_cancelled_ends() -> None:
    begun = asyncio.Event()

    async def step() -> bool:
        begun.set()
        return await asyncio.get_running_loop().create_future()

    async with asyncio.timeout(5):
        running = asyncio.create_task(Loop("cancelled", step, interval=0.01).run(asyncio.Event()))
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_wakes_in_quick_succession_are_for_one_step() -> None:
    stop = asyncio.Event()
    runs: asyncio.Queue[float] = asyncio.Queue()
    now = asyncio.get_running_loop().time

    async def step() -> bool:
        runs.put_nowait(now())
        return False

    loop = Loop("idle", step, interval=3600, spacing=0.2)
    running = asyncio.create_task(loop.run(stop))
    async with asyncio.timeout(5):
        first = await runs.get()
        for number in range(5):  # each in a turn of its own
            asyncio.get_running_loop().call_later(0.02 * number, loop.wake)
        second = await runs.get()
        stop.set()
        await running

    assert second - first >= 0.19
    assert runs.empty()
