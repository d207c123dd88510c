"""Whose results are collected next: nobody waits while there is room, and no account for another."""

import asyncio
from typing import Any, cast

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
        self._done: dict[str, asyncio.Event] = {}

    def waiting(self, shards: int) -> None:
        self.queued = shards

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.started]

    async def settle(self, shard: dict[str, Any], look: Look, provider: BatchProvider) -> None:
        self.started.append((shard["_id"], look))
        await self._done.setdefault(shard["_id"], asyncio.Event()).wait()

    async def finish(self, name: str) -> None:
        self._done[name].set()
        await turns()


async def turns() -> None:
    """What is ready has run, and what that made ready."""
    loop = asyncio.get_running_loop()
    for _ in range(5):
        done = loop.create_future()
        loop.call_soon(done.set_result, None)
        await done


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


def collecting(settler: Settler, *, room: int = 2, share: int = 2) -> tuple[Collector, Pool]:
    large = Pool(room, share, lambda: None)
    return Collector(cast("Any", settler), large, Pool(8, 8, lambda: None), settler), large


async def test_what_waits_starts_in_order_as_room_comes() -> None:
    settler = Settler()
    collector, pool = collecting(settler)
    for name in ("first", "second", "third", "fourth"):
        collector.collect(shard(name), look(), PROVIDER)
    await turns()
    assert settler.names == ["first", "second"]
    assert settler.queued == 2

    await settler.finish("second")
    await turns()

    assert settler.names == ["first", "second", "third"]
    assert settler.queued == 1
    await pool.close()


async def test_account_that_has_its_share_keeps_no_other_waiting() -> None:
    settler = Settler()
    collector, pool = collecting(settler, room=3, share=1)
    for name, account in (("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a")):
        collector.collect(shard(name, account), look(), PROVIDER)
    await turns()
    assert settler.names == ["a1", "b1"]

    await settler.finish("a1")
    await turns()

    assert settler.names == ["a1", "b1", "a2"]
    await pool.close()


async def test_shard_seen_again_keeps_its_place_and_is_collected_once_by_the_newer_look() -> None:
    settler = Settler()
    collector, pool = collecting(settler, room=1)
    collector.collect(shard("busy"), look(), PROVIDER)
    await turns()
    for name, completed in (("seen", 1), ("later", 1), ("seen", 2)):
        collector.collect(shard(name), look(completed), PROVIDER)
    for name in ("busy", "seen", "later"):
        await settler.finish(name)
        await turns()

    assert settler.names == ["busy", "seen", "later"]
    assert settler.started[1][1].counts["completed"] == 2
    await pool.close()


async def test_small_shard_waits_for_no_large_one() -> None:
    settler = Settler()
    collector, pool = collecting(settler, room=1)
    for name in ("large", "another"):
        collector.collect(shard(name), look(), PROVIDER)
    collector.collect(shard("small", lines=10), look(), PROVIDER)
    await turns()

    assert settler.names == ["large", "small"]
    await pool.close()


async def test_account_with_few_waits_for_none_with_many() -> None:
    settler = Settler()
    collector, pool = collecting(settler, room=2, share=1)
    for name, account in (("a1", "a"), ("b1", "b"), ("a2", "a"), ("a3", "a"), ("b2", "b"), ("c1", "c")):
        collector.collect(shard(name, account), look(), PROVIDER)
    await turns()
    for name in ("a1", "b1", "a2"):
        await settler.finish(name)

    assert settler.names == ["a1", "b1", "a2", "b2", "c1"]
    await pool.close()


async def test_one_download_at_a_time_serves_accounts_in_turn() -> None:
    settler = Settler()
    collector, pool = collecting(settler, room=1)
    for name, account in (("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("b2", "b")):
        collector.collect(shard(name, account), look(), PROVIDER)
    await turns()
    for name in ("a1", "a2", "b1", "a3"):
        await settler.finish(name)

    assert settler.names == ["a1", "a2", "b1", "a3", "b2"]
    await pool.close()


async def test_refusal_needs_no_download_and_waits_for_none() -> None:
    settler = Settler()
    collector, pool = collecting(settler, room=1)
    for name in ("busy", "waits"):
        collector.collect(shard(name), look(), PROVIDER)
    collector.collect(shard("refused"), look(status=ProviderStatus.FAILED), PROVIDER)
    await turns()

    assert settler.names == ["busy", "refused"]
    await pool.close()


async def test_what_is_stopped_makes_room_for_nothing() -> None:
    settler = Settler()
    collector, pool = collecting(settler, room=1)
    for name in ("stopped", "waits"):
        collector.collect(shard(name), look(), PROVIDER)
    await turns()

    await pool.close()
    await turns()

    assert settler.names == ["stopped"]


async def test_accounts_share_what_may_wait(monkeypatch: Any) -> None:
    monkeypatch.setattr(collector_module, "_MOST_WAITING", 4)
    settler = Settler()
    collector, pool = collecting(settler, room=1)
    collector.collect(shard("busy"), look(), PROVIDER)
    for name, account in (*((f"a{n}", "a") for n in range(1, 7)), *((f"b{n}", "b") for n in range(1, 7))):
        collector.collect(shard(name, account), look(), PROVIDER)
    await turns()
    order = ["busy", "a1", "b1", "a2", "b2", "a3", "a4"]
    for name in order:
        await settler.finish(name)
    assert settler.names == order

    collector.collect(shard("b3", "b"), look(), PROVIDER)
    await turns()

    assert settler.names[-1] == "b3", "left to a later look, which has come"
    await pool.close()
