"""Batches that expire, are cancelled or refused: what was finished is kept, and the rest is ended once."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from floopy_common.chassis.mongo import Mongo

from .winding_up import Bench


@pytest.fixture
def bench(mongo: Mongo, world: Any) -> Bench:
    return Bench(mongo, world)


async def test_expired_batch_settles_what_nobody_submitted_and_cancels_the_rest(
    bench: Bench, world: Any, bodies: list[Any]
) -> None:
    planted = await world.plan(bodies, shard_lines=2)
    finished, submitted, _ = planted.shards
    await bench.settle(finished)
    await bench.move(
        submitted, state="submitted", provider_batch_id="up", poll={"next_at": datetime.now(UTC)}
    )
    bench.clock.ahead = timedelta(days=1, seconds=1)

    batch = await bench.turn(planted)

    assert batch["status"] == "in_progress"
    assert batch["ending"] == "expired"
    shards = await world.shards(planted)
    assert [(shard["state"], shard["ended"]) for shard in shards] == [
        ("settled", "finished"),
        ("submitted", None),
        ("settled", "expired"),
    ]
    assert shards[1]["cancel_asked_at"] is not None
    assert "looks" in bench.woken


async def test_grace_of_an_expired_batch_ends(bench: Bench, world: Any, bodies: list[Any]) -> None:
    planted = await world.plan(bodies, shard_lines=3)
    for shard in planted.shards:
        await bench.move(shard, state="submitted", provider_batch_id=shard["_id"], poll={})
    await bench.move(planted.shards[1], provider_lost_at=datetime.now(UTC))
    bench.clock.ahead = timedelta(days=1, seconds=1)
    await bench.turn(planted)
    assert {shard["state"] for shard in await world.shards(planted)} == {"submitted"}

    bench.clock.ahead += timedelta(seconds=600)
    await bench.turn(planted)
    await bench.turn(planted)
    await bench.write(planted)
    batch = await bench.turn(planted)

    assert [shard["ended"] for shard in await world.shards(planted)] == ["expired", "lost"]
    assert batch["status"] == "expired"
    assert [event["topic"] for event in batch["outbox"]] == ["batch.expired"]


async def test_grace_ends_nothing_whose_results_only_wait_for_room(
    bench: Bench, world: Any, bodies: list[Any]
) -> None:
    planted = await world.plan(bodies, shard_lines=1)
    known = {"provider_batch_id": "up", "provider_status": "completed"}
    waits, fails, failed = planted.shards[:3]
    for shard in planted.shards:
        await bench.move(shard, state="cancelling", provider_batch_id="up", poll={"failures": 0})
    await bench.move(waits, state="submitted", **known)
    await bench.move(fails, state="submitted", **known, poll={"failures": 1})
    await bench.move(failed, state="downloading", **known, lease={"expires_at": datetime.now(UTC)})
    bench.clock.ahead = timedelta(days=1, seconds=1)
    await bench.turn(planted)

    bench.clock.ahead += timedelta(seconds=600)
    await bench.turn(planted)

    after = {shard["_id"]: shard["state"] for shard in await world.shards(planted)}
    assert after.pop(waits["_id"]) == "submitted"
    assert set(after.values()) == {"settled"}


async def test_batch_does_not_expire_once_every_shard_has_ended(
    bench: Bench, world: Any, bodies: list[Any]
) -> None:
    planted = await world.plan(bodies)
    await bench.settle(planted.shards[0])
    bench.clock.ahead = timedelta(days=2)

    await bench.turn(planted)
    await bench.write(planted)
    batch = await bench.turn(planted)

    assert (batch["status"], batch["ending"]) == ("completed", None)


async def test_cancelled_batch_keeps_what_was_finished(bench: Bench, world: Any, bodies: list[Any]) -> None:
    planted = await world.plan(bodies, shard_lines=3)
    await bench.settle(planted.shards[0])
    await bench.cancel(planted)

    await bench.turn(planted)
    await bench.turn(planted)
    await bench.write(planted)
    batch = await bench.turn(planted)

    assert batch["status"] == "cancelled"
    assert [shard["ended"] for shard in await world.shards(planted)] == ["finished", "cancelled"]
    assert batch["counts"]["total"] == 6
    assert batch["finalizing_at"] is None


async def test_cancelled_before_it_was_planned(bench: Bench, world: Any, bodies: list[Any]) -> None:
    planted = await world.plan(
        bodies, plan=None, status="validating", counts={"total": 0, "completed": 0, "failed": 0}
    )
    await bench.cancel(planted)

    batch = await bench.turn(planted)

    assert batch["status"] == "cancelled"
    assert batch["counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert (batch["audit"]["stage"], batch["audit"]["balanced"]) == ("closed", True)


async def test_every_shard_refused_fails_the_batch_and_no_segment_is_ever_offered(
    bench: Bench, world: Any, bodies: list[Any]
) -> None:
    planted = await world.plan(bodies, segment_lines=3, shard_lines=3)
    await bench.refuse(planted.shards[0], line=3)
    await bench.turn(planted)
    assert await bench.ready(planted) == []

    await bench.refuse(planted.shards[1], line=2)
    batch = await bench.turn(planted)

    assert batch["status"] == "failed"
    assert [error["line"] for error in batch["errors"]] == [2, 3]
    assert batch["counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert (batch["audit"]["stage"], batch["audit"]["balanced"]) == ("closed", True)
    assert await bench.ready(planted) == []
    assert [event["topic"] for event in batch["outbox"]] == ["batch.failed"]


async def test_one_shard_refused_leaves_its_lines_to_the_error_file(
    bench: Bench, world: Any, bodies: list[Any]
) -> None:
    planted = await world.plan(bodies, segment_lines=3, shard_lines=3)
    await bench.refuse(planted.shards[0])
    await bench.settle(planted.shards[1])

    await bench.turn(planted)
    assert await bench.ready(planted) == [0, 1]
    await bench.write(planted)

    assert (await bench.turn(planted))["status"] == "completed"
