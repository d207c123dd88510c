"""Many shards looked at by reading a list: none is missed, none is looked at twice, nothing late counts."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from waiting import eventually

from floopy_common.chassis.mongo import Mongo
from floopy_common.chassis.pipelines import assign, expire_in
from floopy_common.domain.shard import URGENT
from floopy_common.stores.ending import EndingStore
from floopy_common.stores.refreshing import RefreshStore
from floopy_reconciler.core import listing

from .looking import GET, LIST, LONG_AGO, Reconciler, Scene

both = pytest.mark.parametrize("scene", ["openai", "anthropic"], indirect=True)


async def test_list_of_three_pages_finds_all_and_missing_ones_get_their_own_looks(
    scene: Scene, make: Callable[..., Reconciler]
) -> None:
    ids = await scene.plant(205)
    await scene.sim.advance_clock(100)
    await scene.sim.configure(list_lag=50.0)
    missing = await scene.plant(4)

    await scene.settled(make())

    assert len(await scene.calls(LIST)) == 3
    assert {path.rpartition("/")[2] for path in await scene.calls(GET)} == set(missing)
    shards = await scene.all()
    assert len(shards) == len(ids) + 4
    assert all(shard["provider_status"] == "validating" and shard["poll"]["last_at"] for shard in shards)


@both
async def test_what_did_not_change_is_due_again_without_a_look_of_its_own(
    scene: Scene, make: Callable[..., Reconciler]
) -> None:
    ids = await scene.plant(4)
    reconciler = make()
    await scene.settled(reconciler)
    before = {shard["_id"]: shard for shard in await scene.all()}
    reconciler.changed.clear()
    await scene.due_again()
    await scene.sim.advance(ids[1], "completed" if scene.provider == "openai" else "ended")

    await scene.settled(reconciler)

    assert await scene.calls(GET) == []
    assert reconciler.changed == [], "what has ended is told of once its results are here"
    for shard in await scene.all():
        started = before[shard["_id"]]["poll"]["started_at"]
        if shard["provider_batch_id"] == ids[1]:
            assert shard["provider_status"] == "completed"
            assert shard["provider_counts"] == {"total": 2, "completed": 2, "failed": 0}
            assert reconciler.collected.ids == [shard["_id"]]
        else:
            assert shard["poll"]["started_at"] == started, "a claim of its own"
            assert shard["poll"]["last_at"] > started
            assert shard["poll"]["interval"] == 30.0
            later = shard["poll"]["next_at"] - shard["poll"]["last_at"]
            assert timedelta(seconds=27) <= later <= timedelta(seconds=30)


@both
async def test_few_due_shards_are_looked_at_one_by_one(scene: Scene, make: Callable[..., Reconciler]) -> None:
    await scene.plant(2)

    await scene.settled(make(threshold=3))

    assert await scene.calls(LIST) == []
    assert len(await scene.calls(GET)) == 2


async def test_two_reconcilers_read_a_list_once(scene: Scene, make: Callable[..., Reconciler]) -> None:
    await scene.plant(6)

    await scene.settled(make("one"), make("two"))

    assert len(await scene.calls(LIST)) == 1
    assert await scene.calls(GET) == []


async def test_list_whose_reader_died_is_read_by_another(
    scene: Scene, make: Callable[..., Reconciler], mongo: Mongo
) -> None:
    await scene.plant(5)
    dead = make("dead")
    assert await dead.listings.claim(scene.account_id, 5) is not None
    alive = make("alive")
    await alive.poller.step()
    assert await scene.calls(LIST) == await scene.calls(GET) == [], "what another reads is looked at as well"

    await mongo.collection("listings").update_one({}, [assign(raw={"lease.expires_at": expire_in(0)})])
    await scene.settled(alive)

    assert len(await scene.calls(LIST)) == 1


async def test_page_that_comes_late_changes_nothing_of_what_was_seen_since(
    scene: Scene, make: Callable[..., Reconciler]
) -> None:
    ids = await scene.plant(4)
    reconciler = make()
    await scene.settled(reconciler)
    await scene.due_again()
    held = await scene.sim.fault(LIST["openai"], {"kind": "hold", "when": "after"})
    await reconciler.poller.step()

    async def waiting() -> bool:
        return bool((await scene.sim.fault_state(held))["waiting"])

    await eventually(waiting, timeout=20, what="a page on its way")
    await scene.sim.advance(ids[0], "completed")
    assert await RefreshStore(scene.mongo).ask(f"of-{ids[0]}", 0) is not None
    await reconciler.poller.step()

    async def seen() -> Any:
        shard = await scene.one(ids[0])
        return shard if shard["provider_status"] == "completed" else None

    before = await eventually(seen, timeout=20, what="a look of its own beside the reading")
    await scene.sim.release(held)
    await scene.settled(reconciler)

    after = await scene.one(ids[0])
    assert {**after["poll"], "last_at": None} == {**before["poll"], "last_at": None}
    assert after["provider_status"] == "completed"


async def test_who_is_asked_for_does_not_wait_for_a_list(
    scene: Scene, make: Callable[..., Reconciler]
) -> None:
    ids = await scene.plant(5)
    refreshing = RefreshStore(scene.mongo)
    asked = await refreshing.ask(f"of-{ids[3]}", 0)
    assert asked is not None
    reconciler = make()

    await scene.settled(reconciler)

    assert [path.rpartition("/")[2] for path in await scene.calls(GET)] == [ids[3]]
    assert await refreshing.is_answered(f"of-{ids[3]}", asked)


async def test_shard_to_be_cancelled_is_cancelled_whatever_a_list_shows(
    scene: Scene, make: Callable[..., Reconciler]
) -> None:
    ids = await scene.plant(5)
    await scene.shards.update_one({"provider_batch_id": ids[2]}, {"$set": {"plan_id": "plan"}})
    assert await EndingStore(scene.mongo).ask_cancel(f"of-{ids[2]}", "plan") == 1
    assert (await scene.one(ids[2]))["poll"]["next_at"] == URGENT
    await scene.shards.update_one({"provider_batch_id": ids[2]}, {"$set": {"poll.next_at": LONG_AGO}})

    await scene.settled(make())

    shard = await scene.one(ids[2])
    assert shard["state"] == "cancelling"
    assert len(await scene.calls(LIST)) == 1


@pytest.mark.parametrize(
    "action",
    [{"kind": "status", "status": 503}, {"kind": "status", "status": 429}, {"kind": "garbage"}],
    ids=str,
)
async def test_list_that_cannot_be_read_is_read_again_before_each_is_looked_at(
    scene: Scene, make: Callable[..., Reconciler], mongo: Mongo, action: dict[str, Any]
) -> None:
    await scene.plant(4)
    await scene.sim.fault(LIST["openai"], action, times=None)
    reconciler = make()
    listings = mongo.collection("listings")
    for failures in (1, 2, 3):
        await reconciler.poller.step()

        async def failed(wanted: int = failures) -> bool:
            return await listings.find_one({"failures": wanted}) is not None

        await eventually(failed, timeout=20, what="a reading that failed")
        if failures < 3:
            await reconciler.poller.step()
            assert await scene.calls(GET) == []
        await listings.update_one({}, [assign(raw={"lease.expires_at": "$$NOW"})])

    await scene.settled(reconciler)

    assert len(await scene.calls(GET)) == 4
    assert all(shard["provider_status"] == "validating" for shard in await scene.all())


async def test_list_without_our_batches_is_left_alone(
    scene: Scene, make: Callable[..., Reconciler], mongo: Mongo
) -> None:
    await scene.sim.configure(list_lag=3600.0)
    await scene.plant(4)

    await scene.settled(make())

    assert len(await scene.calls(LIST)) == 1
    assert len(await scene.calls(GET)) == 4
    account = await mongo.collection("listings").find_one({})
    assert account is not None
    assert account["next_at"] > datetime.now(UTC)


async def test_counts_of_a_list_never_fall(scene: Scene, make: Callable[..., Reconciler]) -> None:
    ids = await scene.plant(3)
    more = {"total": 2, "completed": 2, "failed": 0}
    await scene.shards.update_one(
        {"provider_batch_id": ids[0]}, {"$set": {"provider_status": "in_progress", "provider_counts": more}}
    )

    await scene.settled(make())

    shard = await scene.one(ids[0])
    assert (shard["provider_status"], shard["provider_counts"]) == ("in_progress", more)


async def test_marks_let_a_list_be_read_in_stretches(
    scene: Scene, make: Callable[..., Reconciler], monkeypatch: pytest.MonkeyPatch, mongo: Mongo
) -> None:
    monkeypatch.setattr(listing, "_MARK_EVERY", 1)
    await scene.plant(205)
    reconciler = make()
    await scene.settled(reconciler)
    read = await mongo.collection("listings").find_one({})
    assert read is not None
    assert (read["pages"], len(read["marks"])) == (3, 2)
    await scene.plant(3)
    await scene.due_again()
    before = len(await scene.calls(LIST))

    await scene.settled(reconciler)

    assert await scene.calls(GET) == []
    assert len(await scene.calls(LIST)) - before in {4, 5}
    again = await mongo.collection("listings").find_one({})
    assert again is not None
    assert [mark["id"] for mark in read["marks"]] == [mark["id"] for mark in again["marks"]][-2:]
