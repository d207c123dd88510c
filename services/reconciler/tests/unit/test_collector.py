"""Whose results are collected next: nobody waits while there is room, and no account for another."""

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

import pytest

from floopy_common.providers.port import BatchProvider, ProviderStatus
from floopy_reconciler.core import collector as collector_module
from floopy_reconciler.core.collector import Collector
from floopy_reconciler.core.look import Look
from floopy_reconciler.core.pool import Pool

PROVIDER = cast("BatchProvider", None)


class Settler:
    """Settles nothing: a test says when each is done."""

    def __init__(self) -> None:
        self.started: list[tuple[str, Look]] = []
        self.queued = 0
        self.freed = asyncio.Event()
        self._done: dict[str, asyncio.Event] = {}

    def waiting(self, shards: int) -> None:
        self.queued = shards

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.started]

    def settle(self, shard: dict[str, Any], look: Look, provider: BatchProvider) -> Coroutine[Any, Any, Any]:
        self.started.append((shard["_id"], look))
        return self._done.setdefault(shard["_id"], asyncio.Event()).wait()

    async def finish(self, name: str) -> None:
        """Afterwards what that made room for has started."""
        self.freed.clear()
        self._done[name].set()
        await self.freed.wait()


def shard(name: str, account: str = "a", *, lines: int = 5_000) -> dict[str, Any]:
    return {
        "_id": name,
        "account_id": account,
        "batch_id": "batch",
        "provider_batch_id": "up",
        "lines": lines,
        "bytes": 100 * lines,
        "ranges": [[1, 1]],
    }


def look(completed: int = 1, status: ProviderStatus = ProviderStatus.COMPLETED) -> Look:
    counts = {"total": 1, "completed": completed, "failed": 0}
    return Look(status, counts, {"output": None, "error": None}, (), changed=True, regressed=False)


def collecting(settler: Settler, *, room: int = 2, share: int = 2, small: int = 8) -> tuple[Collector, Pool]:
    large = Pool(room, share, lambda: None)
    collector = Collector(cast("Any", settler), large, Pool(small, small, lambda: None), settler)
    large.when_free(settler.freed.set)
    return collector, large


async def test_what_waits_starts_in_order_as_room_comes() -> None:
    settler = Settler()
    collector, pool = collecting(settler)
    for name in ("first", "second", "third", "fourth"):
        collector.collect(shard(name), look(), PROVIDER)
    assert settler.names == ["first", "second"]
    assert settler.queued == 2

    await settler.finish("second")

    assert settler.names == ["first", "second", "third"]
    assert settler.queued == 1
    await pool.close()


@pytest.mark.parametrize(
    ("room", "share", "ended", "finished", "started"),
    [
        # an account that has its share keeps no other waiting
        (3, 1, "a1 a2 b1 a3", "", "a1 b1"),
        (3, 1, "a1 a2 b1 a3", "a1", "a1 b1 a2"),
        # one with few waits for none with many
        (2, 1, "a1 b1 a2 a3 b2 c1", "a1 b1 a2", "a1 b1 a2 b2 c1"),
        # one download at a time serves accounts in turn
        (1, 2, "a1 a2 a3 b1 b2", "a1 a2 b1 a3", "a1 a2 b1 a3 b2"),
    ],
)
async def test_accounts_take_turns(room: int, share: int, ended: str, finished: str, started: str) -> None:
    settler = Settler()
    collector, pool = collecting(settler, room=room, share=share)
    for name in ended.split():
        collector.collect(shard(name, name[0]), look(), PROVIDER)
    for name in finished.split():
        await settler.finish(name)

    assert settler.names == started.split()
    await pool.close()


async def test_shard_seen_again_keeps_its_place_and_is_collected_once_by_the_newer_look() -> None:
    settler = Settler()
    collector, pool = collecting(settler, room=1)
    collector.collect(shard("busy"), look(), PROVIDER)
    for name, completed in (("seen", 1), ("later", 1), ("seen", 2)):
        collector.collect(shard(name), look(completed), PROVIDER)
    for name in ("busy", "seen", "later"):
        await settler.finish(name)

    assert settler.names == ["busy", "seen", "later"]
    assert settler.started[1][1].counts["completed"] == 2
    await pool.close()


async def test_small_shard_waits_for_no_large_one() -> None:
    settler = Settler()
    collector, pool = collecting(settler, room=1)
    for name in ("large", "another"):
        collector.collect(shard(name), look(), PROVIDER)
    collector.collect(shard("small", lines=10), look(), PROVIDER)

    assert settler.names == ["large", "small"]
    await pool.close()


async def test_refusal_needs_no_download_and_waits_for_none() -> None:
    settler = Settler()
    collector, pool = collecting(settler, room=1)
    for name in ("busy", "waits"):
        collector.collect(shard(name), look(), PROVIDER)
    collector.collect(shard("refused"), look(status=ProviderStatus.FAILED), PROVIDER)

    assert settler.names == ["busy", "refused"]
    await pool.close()


async def test_refusal_without_room_is_left_to_a_later_look_which_says_why_by_then() -> None:
    settler = Settler()
    collector, pool = collecting(settler, small=0)
    collector.collect(shard("refused"), look(status=ProviderStatus.FAILED), PROVIDER)

    collector.collect(shard("large"), look(), PROVIDER)

    assert settler.names == ["large"]
    assert settler.queued == 0
    await pool.close()


async def test_what_is_stopped_makes_room_for_nothing() -> None:
    settler = Settler()
    collector, pool = collecting(settler, room=1)
    for name in ("stopped", "waits"):
        collector.collect(shard(name), look(), PROVIDER)

    await pool.close()

    assert settler.names == ["stopped"]


async def test_accounts_share_what_may_wait(monkeypatch: Any) -> None:
    monkeypatch.setattr(collector_module, "_MOST_WAITING", 4)
    settler = Settler()
    collector, pool = collecting(settler, room=1)
    collector.collect(shard("busy"), look(), PROVIDER)
    for name, account in (*((f"a{n}", "a") for n in range(1, 7)), *((f"b{n}", "b") for n in range(1, 7))):
        collector.collect(shard(name, account), look(), PROVIDER)
    order = ["busy", "a1", "b1", "a2", "b2", "a3", "a4"]
    for name in order:
        await settler.finish(name)
    assert settler.names == order

    collector.collect(shard("b3", "b"), look(), PROVIDER)

    assert settler.names[-1] == "b3", "left to a later look, which has come"
    await pool.close()
