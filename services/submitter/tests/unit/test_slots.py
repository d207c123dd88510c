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


def _rows(accounts: str, large: str = "") -> list[dict[str, Any]]:
    """A piece of work for each letter; those in `large` weigh something."""
    return [{"account_id": account, "large": account in large} for account in accounts]


def _shared(slots: Slots, rows: list[dict[str, Any]], alone: str = "", room: int = 9) -> str:
    chosen = slots.share(rows, set(alone), lambda row: bool(row["large"]), room)
    return "".join(row["account_id"] for row in chosen)


async def test_work_is_shared_out_as_if_it_were_found_one_by_one() -> None:
    slots = Slots(4, lambda: None)
    assert _shared(slots, _rows("aaabbc")) == "abca"

    slots.start("a", asyncio.Event().wait())  # type: ignore[arg-type]
    assert _shared(slots, _rows("aaaabb")) == "bab"
    assert _shared(slots, _rows("aaaa")) == "aa", "the last slot is not for an account that has the others"
    await slots.close(0)


async def test_an_account_that_works_alone_gets_one_job() -> None:
    slots = Slots(4, lambda: None)
    assert _shared(slots, _rows("aaabb"), alone="a") == "abb"

    slots.start("a", asyncio.Event().wait())  # type: ignore[arg-type]
    assert _shared(slots, _rows("aab"), alone="a") == "b"
    await slots.close(0)


async def test_of_what_weighs_only_so_many_begin_and_the_rest_is_in_nobodys_way() -> None:
    slots = Slots(9, lambda: None)

    assert _shared(slots, _rows("aaabb", large="a"), room=2) == "abab"
    assert _shared(slots, _rows("aab", large="a"), room=0) == "b"


class Backlog:
    """Work in order of arrival, as accounts, looked at in parts."""

    def __init__(self, accounts: str) -> None:
        self._rows = _rows(accounts)
        self.looks = 0

    async def find(self, most: int, without: Collection[str]) -> list[dict[str, Any]]:
        self.looks += 1
        return [row for row in self._rows if row["account_id"] not in without][:most]


async def test_an_account_with_much_to_do_hides_no_other() -> None:
    slots = Slots(3, lambda: None)
    slots.start("b", asyncio.Event().wait())  # type: ignore[arg-type]
    backlog = Backlog("a" * 100 + "b" * 100 + "c")

    rows, more = await slots.offered(backlog.find)

    assert _shared(slots, rows) == "ac"
    assert (more, backlog.looks) == (True, 3)
    await slots.close(0)


async def test_an_account_with_one_job_is_found_behind_anothers_backlog() -> None:
    slots = Slots(8, lambda: None)
    for account in "aaaaab":
        slots.start(account, asyncio.Event().wait())  # type: ignore[arg-type]

    rows, _ = await slots.offered(Backlog("a" * 100 + "b" * 100).find)

    assert _shared(slots, rows) == "bb"
    await slots.close(0)


async def test_one_look_is_enough_where_there_is_little_to_do() -> None:
    backlog = Backlog("aab")

    rows, more = await Slots(3, lambda: None).offered(backlog.find, {"b"})

    assert (rows, more, backlog.looks) == (_rows("aa"), False, 1)


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
