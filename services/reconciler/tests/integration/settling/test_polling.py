"""Due looks: one at a time per shard, whoever asks, and none that comes late changes anything."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from waiting import eventually

from floopy_common.chassis.mongo import Mongo
from floopy_common.domain.errors import LeaseLost
from floopy_common.domain.shard import ShardEnd
from floopy_common.stores.polling import PollStore
from floopy_common.stores.refreshing import RefreshStore

COUNTS = {"total": 1, "completed": 0, "failed": 0}


@pytest.fixture
def polls(mongo: Mongo) -> PollStore:
    return PollStore(mongo, "test", lease_ttl=30)


@pytest.fixture
async def planted(world: Any, body: Callable[..., Any]) -> Any:
    return await world.submitted([body("q")])


async def record(polls: PollStore, shard: dict[str, Any], status: str = "in_progress", **more: Any) -> Any:
    kept = {"status": status, "counts": COUNTS, "files": None, "interval": 60, **more}
    return await polls.record_look(shard, **kept)


async def claim(polls: PollStore) -> dict[str, Any]:
    (due,) = await polls.due_looks(10)
    claimed = await polls.claim_look(due["_id"], 30)
    assert claimed is not None
    return claimed


async def a_moment_after_the_look(polls: PollStore) -> None:
    """The server's clock has milliseconds: until it shows a later one than when the look began."""
    begun_earlier = {"$expr": {"$lt": ["$poll.started_at", "$$NOW"]}}
    await eventually(lambda: polls._shards.find_one(begun_earlier), what="a later millisecond")


async def test_claimed_look_is_nobody_elses(polls: PollStore, planted: Any) -> None:
    shard = await claim(polls)

    assert await polls.due_looks(10) == []
    assert await polls.claim_look(shard["_id"], 30) is None


async def test_recorded_look_is_due_again_after_its_interval(polls: PollStore, planted: Any) -> None:
    after = await record(polls, await claim(polls))

    assert after["poll"]["next_at"] > datetime.now(UTC)
    assert after["poll"]["last_at"] == after["poll"]["started_at"]
    assert await polls.due_looks(10) == []


async def test_claim_that_ran_out_is_taken_over_and_its_look_changes_nothing(
    polls: PollStore, planted: Any
) -> None:
    (due,) = await polls.due_looks(10)
    late = await polls.claim_look(due["_id"], 0)
    assert late is not None
    await a_moment_after_the_look(polls)
    second = await claim(polls)
    await record(polls, second, "completed")

    assert await record(polls, late) is None
    (shard,) = await polls._shards.find_all({})
    assert shard["provider_status"] == "completed"


async def test_look_that_takes_long_stays_ones_own(polls: PollStore, planted: Any) -> None:
    (due,) = await polls.due_looks(10)
    looking = await polls.claim_look(due["_id"], 0.3)
    assert looking is not None
    claimed_until = looking["poll"]["claimed_until"]

    async def past_the_claim() -> bool:
        assert await polls.due_looks(10) == []
        return datetime.now(UTC) > claimed_until + timedelta(seconds=0.3)

    async with polls.keeping(looking, 0.3):
        await eventually(past_the_claim, timeout=20, what="more time than was claimed")


async def test_look_that_is_stopped_is_due_for_others_at_once(polls: PollStore, planted: Any) -> None:
    looking = await claim(polls)

    with pytest.raises(asyncio.CancelledError):
        async with polls.keeping(looking, 30):
            raise asyncio.CancelledError

    assert len(await polls.due_looks(10)) == 1


async def test_asking_during_a_look_brings_another_at_once(
    polls: PollStore, planted: Any, mongo: Mongo
) -> None:
    refreshing = RefreshStore(mongo)
    looking = await claim(polls)
    await a_moment_after_the_look(polls)
    asked = await refreshing.ask(planted.id, 0)
    assert asked is not None
    assert await polls.due_looks(10) == [], "a second look beside the first"

    await record(polls, looking)

    assert not await refreshing.is_answered(planted.id, asked)
    await record(polls, await claim(polls))
    assert await refreshing.is_answered(planted.id, asked)


async def test_look_that_changed_something_answers_only_when_the_batch_shows_it(
    polls: PollStore, planted: Any, mongo: Mongo
) -> None:
    refreshing = RefreshStore(mongo)
    asked = await refreshing.ask(planted.id, 0)
    assert asked is not None

    after = await record(polls, await claim(polls), answered=False)
    assert not await refreshing.is_answered(planted.id, asked)

    await polls.answer_look(after)
    assert await refreshing.is_answered(planted.id, asked)


async def test_counts_never_fall(polls: PollStore, planted: Any) -> None:
    many = {"total": 9, "completed": 7, "failed": 1}
    shard = await claim(polls)
    await polls.record_look(shard, status="in_progress", counts=many, files=None, interval=0)
    after = await record(polls, await claim(polls))

    assert after["provider_counts"] == many


async def test_shard_is_collected_by_one_worker(polls: PollStore, planted: Any) -> None:
    (shard,) = await polls.due_looks(10)

    async with polls.hold(shard) as mine, polls.hold(shard) as yours:
        assert mine is not None
        assert yours is None
        assert await polls.due_looks(10) == [], "a look beside the download"
        await mine.settle(None, ShardEnd.FINISHED)


async def test_of_looks_at_the_same_end_one_leads_to_a_download(polls: PollStore, planted: Any) -> None:
    first = await record(polls, await claim(polls), status="completed", interval=0)
    second = await record(polls, await claim(polls), status="completed", interval=0)
    assert first["poll"]["started_at"] < second["poll"]["started_at"]

    async with polls.hold(first) as mine:
        assert mine is not None
        await mine.download_again(0)

    for seen in (first, second):
        async with polls.hold(seen) as again:
            assert again is None

    later = await record(polls, await claim(polls), status="completed")
    async with polls.hold(later) as mine:
        assert mine is not None
        await mine.settle(None, ShardEnd.FINISHED)


async def test_look_that_fails_keeps_nobody_from_collecting(polls: PollStore, planted: Any) -> None:
    seen = await record(polls, await claim(polls), status="completed", interval=0)
    await polls.record_failure(await claim(polls), 60)

    async with polls.hold(seen) as mine:
        assert mine is not None


async def test_look_under_way_when_collecting_begins_tells_nothing(polls: PollStore, planted: Any) -> None:
    seen = await record(polls, await claim(polls), status="completed", interval=0)
    looking = await claim(polls)

    async with polls.hold(seen) as mine:
        assert mine is not None
        assert await record(polls, looking, status="completed") is None
        await mine.download_again(60)
    assert await record(polls, looking, status="completed") is None


async def test_refusal_that_another_look_has_overtaken_refuses_nothing(
    polls: PollStore, planted: Any
) -> None:
    seen = await record(polls, await claim(polls), status="failed", interval=0)
    newer = await record(polls, await claim(polls), status="failed")

    assert not await polls.refuse(seen, {"errors": []})
    assert not await polls.requeue(seen, 5, 1)
    assert await polls.refuse(newer, {"errors": []})


async def test_worker_whose_lease_ran_out_settles_nothing(planted: Any, mongo: Mongo) -> None:
    slow, quick = PollStore(mongo, "slow", lease_ttl=30), PollStore(mongo, "quick", lease_ttl=30)
    (shard,) = await slow.due_looks(10)

    with pytest.raises(LeaseLost):
        async with slow.hold(shard) as late:
            assert late is not None
            await mongo.collection("shards").update_one(
                {"_id": shard["_id"]}, [{"$set": {"lease.expires_at": "$$NOW"}}]
            )
            (seen_again,) = await quick.due_looks(10)
            async with quick.hold(seen_again) as mine:
                assert mine is not None
                await late.settle(None, ShardEnd.LOST)

    (after,) = await mongo.collection("shards").find_all({})
    assert after["state"] == "downloading"


async def test_detached_shard_is_unknown_again(polls: PollStore, planted: Any) -> None:
    (shard,) = await polls.due_looks(10)
    async with polls.hold(shard) as hold:
        assert hold is not None
        await hold.detach()

    (after,) = await polls._shards.find_all({})
    assert (after["state"], after["provider_batch_id"]) == ("submit_unknown", None)
    assert after["foreign"] == [shard["provider_batch_id"]]
    assert after["attempts"][-1]["phase"] == "unknown"


async def test_requeued_shard_keeps_its_place_in_line(polls: PollStore, planted: Any) -> None:
    (shard,) = await polls.due_looks(10)
    await polls.requeue(shard, 5, 1)
    (first,) = await polls._shards.find_all({})
    await polls._shards.update_one(
        {}, {"$set": {"state": "submitted", "provider_batch_id": "other", "waiting": None}}
    )
    (again,) = await polls._shards.find_all({})
    await polls.requeue(again, 10, 2)

    (after,) = await polls._shards.find_all({})
    assert after["state"] == "waiting"
    assert after["waiting"]["reason"] == "provider_queue_full"
    assert after["waiting"]["since"] == first["waiting"]["since"]
    assert after["queue_refusals"] == 2
