"""Which shards are submitted next: found by one look, large ones a few at a time, and each by one worker."""

from typing import Any

from pymongo import MongoClient

from floopy_common.chassis.pipelines import assign, expire_in
from floopy_common.stores.due_shards import looks
from floopy_common.stores.submitting import SubmitStore
from floopy_submitter.core import due


async def test_finding_shards_reads_no_more_than_are_wanted(
    world, make_lines, mongo, mongo_uri: str, mongo_database: str
) -> None:
    await world.plan(make_lines(40), await world.account(), shard_lines=1)
    later = [assign(raw={"waiting.next_attempt_at": expire_in(60)})]
    waiting = [assign({"state": "waiting"}), *later]
    await mongo.collection("shards").update_many({"no": {"$lt": 20}}, waiting)
    read = []
    with MongoClient[dict[str, Any]](mongo_uri) as client:
        for pipeline in looks({}, 3):
            command = {"aggregate": "shards", "pipeline": pipeline, "cursor": {}}
            explained = client[mongo_database].command("explain", command, verbosity="executionStats")
            read.append(_examined(explained))

    found = await SubmitStore(mongo, "test", 5).due(3)

    assert [shard["_id"].rpartition(":")[2] for shard in found] == ["00020", "00021", "00022"]
    assert read == [0, 0, 3]


def _examined(explained: dict[str, Any]) -> int:
    stats = explained.get("executionStats") or explained["stages"][0]["$cursor"]["executionStats"]
    return int(stats["totalDocsExamined"])


async def test_shards_that_wait_come_before_what_was_left_behind_before_new_ones(
    world, make_lines, mongo
) -> None:
    batch_id = await world.plan(make_lines(3), await world.account(), shard_lines=1)
    new, left, waits = await world.shards(batch_id)
    await world.update("shards", waits["_id"], state="waiting", waiting={"reason": "rate_limited"})
    await world.update("shards", left["_id"], state="submitting")

    found = await SubmitStore(mongo, "test", 5).due(3)
    without = await SubmitStore(mongo, "test", 5).due(3, without_accounts={new["account_id"]})
    small = await SubmitStore(mongo, "test", 5).due(3, largest=new["bytes"] - 1)

    assert [shard["_id"] for shard in found] == [waits["_id"], left["_id"], new["_id"]]
    assert (without, small) == ([], [])


async def test_a_shard_of_unknown_size_is_not_among_the_small_ones(world, make_lines, mongo) -> None:
    batch_id = await world.plan(make_lines(2), await world.account(), shard_lines=1)
    known, unknown = await world.shards(batch_id)
    await world.update("shards", unknown["_id"], bytes=0)

    small = await SubmitStore(mongo, "test", 5).due(3, largest=known["bytes"])

    assert [shard["_id"] for shard in small] == [known["_id"]]


async def test_few_large_shards_are_submitted_at_a_time_and_small_ones_beside_them(
    world, running, make_lines, quiet, simulator, monkeypatch
) -> None:
    large = await world.plan(make_lines(60), await world.account("sk-large"), shard_lines=20)
    small = await world.plan(make_lines(12), await world.account("sk-small"), shard_lines=4)
    monkeypatch.setattr(due, "SMALL", max(shard["bytes"] for shard in await world.shards(small)))
    monkeypatch.setattr(due, "MOST_LARGE", 1)
    held = await simulator.fault("files.create", {"kind": "hold"}, times=None, key="sk-large")

    async with running():
        await world.in_state(small, "submitted")
        calls = [call for call in await simulator.calls("files.create") if call["key"] == "sk-large"]
        await simulator.release(held)
        await world.repair(held)
        await world.in_state(large, "submitted")

    assert len(calls) == 1


async def test_two_submitters_share_the_work_without_doubling_any(
    world, running, make_lines, quiet, simulator
) -> None:
    batch_id = await world.plan(make_lines(12), await world.account(), shard_lines=1)

    async with running(), running():
        shards = await world.in_state(batch_id, "submitted")

    assert all(len(shard["attempts"]) == 1 for shard in shards)
    assert len(await simulator.calls("batches.create")) == 12
    await world.assert_one_kept_for_each(batch_id)
