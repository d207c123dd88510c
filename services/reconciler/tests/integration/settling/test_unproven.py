"""A provider batch found by its time and size alone may be somebody else's."""

from collections.abc import Callable
from typing import Any

from floopy_common.chassis.mongo import Mongo
from floopy_common.stores.ending import EndingStore


async def test_nothing_is_cancelled_that_may_be_somebody_elses(
    mongo: Mongo, world: Any, body: Callable[..., Any]
) -> None:
    planted = await world.plan([body("q1"), body("q2")], shard_lines=1)
    shards = mongo.collection("shards")
    for shard, resolution in zip(planted.shards, ("adopted_unproven", "adopted"), strict=True):
        attempt = {"provider_batch_id": shard["_id"], "resolution": resolution}
        found = {"state": "submitted", "provider_batch_id": shard["_id"], "attempts": [attempt]}
        await shards.update_one({"_id": shard["_id"]}, {"$set": found})

    assert await EndingStore(mongo).ask_cancel(planted.id, planted.batch["plan"]["plan_id"]) == 1

    unproven, proven = await world.shards(planted)
    assert unproven["cancel_asked_at"] is None
    assert proven["cancel_asked_at"] is not None
