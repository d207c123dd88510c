"""When a batch that nobody asked about has its next turn."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from floopy_common.chassis.mongo import Mongo
from floopy_common.stores.finishing import TurnStore


@pytest.fixture
def bodies(body: Callable[..., Any]) -> list[dict[str, Any]]:
    return [body("q")]


async def until_next_turn(mongo: Mongo, planted: Any, **fields: Any) -> float:
    """Seconds from a turn of the batch, changed like that, to its next."""
    turns, batches = TurnStore(mongo), mongo.collection("batches")
    await batches.update_one({"_id": planted.id}, {"$set": fields})
    await turns.nudge(planted.id)
    (taken,) = await turns.take(5, 10)
    left: timedelta = taken["next_look_at"] - datetime.now(UTC)
    return left.total_seconds()


async def test_a_batch_that_moves_by_itself_has_its_turns_ever_more_rarely(
    mongo: Mongo, world: Any, bodies: list[Any]
) -> None:
    planted = await world.plan(bodies)
    now = datetime.now(UTC)
    tomorrow = now + timedelta(days=1)

    async def after(**ago: float) -> float:
        began = now - timedelta(**ago)
        return await until_next_turn(mongo, planted, in_progress_at=began, expires_at=tomorrow)

    assert 8 < await after(seconds=1) <= 10
    assert 50 < await after(minutes=20) < 70
    assert 580 < await after(hours=20) <= 600


async def test_no_turn_is_so_far_away_that_a_batch_would_expire_unseen(
    mongo: Mongo, world: Any, bodies: list[Any]
) -> None:
    planted = await world.plan(bodies)
    now = datetime.now(UTC)
    long_ago, soon = now - timedelta(hours=20), now + timedelta(seconds=60)

    left = await until_next_turn(mongo, planted, in_progress_at=long_ago, expires_at=soon)

    assert 50 < left <= 60


async def test_a_batch_that_is_ending_has_its_turns_often(
    mongo: Mongo, world: Any, bodies: list[Any]
) -> None:
    planted = await world.plan(bodies)
    long_ago = datetime.now(UTC) - timedelta(hours=20)
    tomorrow = datetime.now(UTC) + timedelta(days=1)

    left = await until_next_turn(
        mongo, planted, in_progress_at=long_ago, expires_at=tomorrow, ending="expired"
    )

    assert left <= 10


async def test_a_new_process_gives_every_batch_a_turn_at_once(
    mongo: Mongo, world: Any, bodies: list[Any]
) -> None:
    planted = await world.plan(bodies)
    turns = TurnStore(mongo)
    assert len(await turns.take(5, 1_000)) == 1
    assert await turns.take(5, 1_000) == []

    await turns.all_due()

    (taken,) = await turns.take(5, 1_000)
    assert taken["_id"] == planted.id


async def test_the_batches_longest_due_come_first_and_each_to_one_process(
    mongo: Mongo, world: Any, bodies: list[Any]
) -> None:
    planted = [await world.plan(bodies) for _ in range(5)]
    for hours, each in enumerate(planted, 1):
        await mongo.collection("batches").update_one(
            {"_id": each.id}, {"$set": {"next_look_at": datetime.now(UTC) - timedelta(hours=hours)}}
        )
    turns = TurnStore(mongo)

    first = await turns.take(2, 1_000)
    both = await asyncio.gather(turns.take(5, 1_000), turns.take(5, 1_000))

    assert [batch["_id"] for batch in first] == [planted[4].id, planted[3].id]
    rest = [batch["_id"] for taken in both for batch in taken]
    assert sorted(rest) == sorted(each.id for each in planted[:3])
