"""Slots are shared out by account, and closed within a bound."""

import asyncio
from collections.abc import Collection
from typing import Any

import pytest

from floopy_common.domain.errors import LeaseLost
from floopy_submitter.core.slots import Slots


class Queue:
    """Work in order of arrival, as accounts."""

    def __init__(self, *accounts: str) -> None:
        self._accounts = list(accounts)

    async def find(self, without: Collection[str]) -> dict[str, Any] | None:
        for account in self._accounts:
            if account not in without:
                self._accounts.remove(account)
                return {"account_id": account}
        return None


async def _fill(slots: Slots, queue: Queue) -> list[str]:
    started = []
    while slots.free > 0:
        work = await slots.next_from(queue.find)
        if work is None:
            break
        started.append(work["account_id"])
        slots.start(work["account_id"], asyncio.Event().wait())  # type: ignore[arg-type]
    return started


async def test_the_least_busy_account_comes_next() -> None:
    slots = Slots(4, lambda: None)

    assert await _fill(slots, Queue("a", "a", "a", "b", "b", "c")) == ["a", "b", "c", "a"]
    await slots.close(0)


async def test_one_account_never_takes_the_last_slot() -> None:
    slots = Slots(3, lambda: None)

    assert await _fill(slots, Queue(*"aaaaa")) == ["a", "a"]
    assert await _fill(slots, Queue("a", "b")) == ["b"]
    await slots.close(0)


async def test_a_single_slot_is_for_whoever_comes() -> None:
    slots = Slots(1, lambda: None)

    assert await _fill(slots, Queue("a", "a")) == ["a"]
    await slots.close(0)


async def test_excluded_accounts_get_nothing() -> None:
    slots = Slots(2, lambda: None)

    assert await slots.next_from(Queue("a", "b").find, {"a"}) == {"account_id": "b"}
    assert await slots.next_from(Queue("a").find, {"a"}) is None


async def test_a_job_that_ends_frees_its_slot_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    freed = asyncio.Event()
    slots = Slots(1, freed.set)

    async def lose() -> None:
        raise LeaseLost("shard")

    slots.start("a", lose())
    await asyncio.wait_for(freed.wait(), 5)

    assert slots.free == 1
    assert [record.levelname for record in caplog.records if record.levelname == "ERROR"] == []


async def test_closing_lets_jobs_finish_and_stops_those_that_do_not() -> None:
    slots = Slots(2, lambda: None)
    ended: list[str] = []

    async def quick() -> None:
        await asyncio.sleep(0)
        ended.append("quick")

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("stopped")

    slots.start("a", quick())
    slots.start("b", endless())
    await slots.close(0.05)

    assert ended == ["quick", "stopped"]
    assert slots.free == 2
