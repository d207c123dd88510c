"""What a list is read for and what a page may say, in the store: due accounts, one reader, no look undone."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from floopy_common.chassis.mongo import Mongo
from floopy_common.chassis.pipelines import assign
from floopy_common.domain.errors import LeaseLost
from floopy_common.domain.shard import URGENT
from floopy_common.stores.listings import ListingStore
from floopy_common.stores.polling import PollStore

from .looking import LONG_AGO, Scene


async def test_due_accounts_are_counted(scene: Scene, mongo: Mongo) -> None:
    await scene.shards.insert_many([scene._shard(f"batch_{n}") for n in range(300)])
    listings = ListingStore(mongo, "one", 30)
    assert await listings.due_accounts() == {scene.account_id: 300}
    assert await listings.due_accounts([scene.account_id]) == {}
    assert await listings.crowd(100) == (1, {scene.account_id: 300})
    await scene.shards.update_many({}, {"$set": {"poll.next_at": URGENT}})
    assert await listings.due_accounts() == {}


async def test_due_looks_read_no_more_shards_than_they_return(scene: Scene, mongo: Mongo) -> None:
    now = datetime.now(UTC)
    shards = [scene._shard(f"batch_{n}") for n in range(400)]
    for number, shard in enumerate(shards):
        shard["account_id"] = f"acc_{number % 2}"
        shard["poll"]["next_at"] = now + timedelta(seconds=number - 200)
    await scene.shards.insert_many(shards)
    due = PollStore(mongo, "one", 30).due_looks

    for leave_out in ([], ["acc_0"]):
        assert len(await due(8, leave_out)) == 8

    raw = mongo._database
    await raw.command("profile", 2)
    await due(8, ["acc_0"])
    await ListingStore(mongo, "one", 30).due_accounts(["acc_0"])
    await raw.command("profile", 0)
    seen = await raw["system.profile"].find({"ns": f"{raw.name}.shards"}).to_list(None)
    assert [row["docsExamined"] for row in seen] == [0, 8, 100]  # none urgent, eight looks, all that is due
    assert all("COLLSCAN" not in row["planSummary"] for row in seen)


@pytest.mark.parametrize(
    "poll",
    [
        {"started_at": datetime(2026, 1, 2, tzinfo=UTC)},
        {"claimed_until": datetime(2026, 1, 2, tzinfo=UTC)},
        {"next_at": URGENT},
    ],
    ids=["looked at since", "looked at now", "to be looked at by itself"],
)
async def test_page_speaks_for_no_shard_with_a_look_of_its_own(
    scene: Scene, mongo: Mongo, poll: dict[str, Any]
) -> None:
    shards = [scene._shard(f"batch_{n}") for n in range(2)]
    shards[1]["poll"] |= poll
    await scene.shards.insert_many(shards)
    listed_at = datetime(2026, 1, 1, tzinfo=UTC)

    await ListingStore(mongo, "one", 30).unchanged(
        scene.account_id, ["batch_0", "batch_1"], listed_at=listed_at, interval=30, delay=28
    )

    assert (await scene.one("batch_0"))["poll"]["next_at"] == listed_at + timedelta(seconds=28)
    assert (await scene.one("batch_1"))["poll"] == shards[1]["poll"]


async def test_listing_is_taken_by_one_and_only_when_it_is_worth_it(scene: Scene, mongo: Mongo) -> None:
    one, two = ListingStore(mongo, "one", 30), ListingStore(mongo, "two", 30)
    claim = await one.claim(scene.account_id, 5)
    assert claim is not None
    assert await two.claim(scene.account_id, 5) is None
    assert await two.held() == {scene.account_id}

    async with claim.hold() as hold:
        await hold.finish(7, [])

    assert await two.held() == set()
    assert await two.claim(scene.account_id, 6) is None
    assert await two.claim(scene.account_id, 7) is not None


async def test_reader_whose_lease_ran_out_ends_nothing(scene: Scene, mongo: Mongo) -> None:
    one, two = ListingStore(mongo, "one", 30), ListingStore(mongo, "two", 30)
    late = await one.claim(scene.account_id, 5)
    assert late is not None

    with pytest.raises(LeaseLost):
        async with late.hold() as hold:
            await mongo.collection("listings").update_one({}, [assign(raw={"lease.expires_at": "$$NOW"})])
            assert await two.claim(scene.account_id, 5) is not None
            await hold.finish(1, [])

    assert await two.held() == {scene.account_id}


async def test_unlisted_is_urgent_only_when_it_was_due(scene: Scene, mongo: Mongo) -> None:
    await scene.shards.insert_many([scene._shard(f"batch_{n}") for n in range(3)])
    now = datetime.now(UTC)
    await scene.shards.update_one(
        {"provider_batch_id": "batch_1"}, {"$set": {"poll.next_at": now + timedelta(hours=1)}}
    )

    assert await ListingStore(mongo, "one", 30).hurry_unseen(scene.account_id, now) == 2

    hurried = await scene.one("batch_0")
    assert (hurried["poll"]["next_at"], hurried["poll"]["due_at"]) == (URGENT, LONG_AGO)
    assert (await scene.one("batch_1"))["poll"]["next_at"] > now
