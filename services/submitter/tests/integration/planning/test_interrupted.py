"""Planning that is interrupted, by a cancel, a death or a lost lease: what is left, and who goes on."""

import asyncio
from typing import Any

import pytest
from waiting import eventually

from floopy_common.chassis.clock import SystemClock
from floopy_common.domain.errors import LeaseLost

NOW = SystemClock().now()


async def test_cancelling_while_the_input_is_read_leaves_nothing_live(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(20), cap=100)

    async def cancel() -> None:
        await world.cancel(batch_id)

    assert await world.planner(between=cancel).step()

    await assert_nothing_live(world, batch_id, "cancelling")
    assert world.woken == []


async def test_cancelling_just_before_the_plan_counts_leaves_nothing_live(
    world: Any, make_lines: Any
) -> None:
    batch_id = await world.create(make_lines(20), cap=100)
    store = world.store()
    claim = await store.claim(batch_id, NOW)
    async with claim.hold() as hold:
        assert await hold.reserve(20)
        await write_something(hold)
        await world.cancel(batch_id)
        assert not await hold.planned({"plan": {"plan_id": hold.plan_id}}, claim.batch["created_at"])

    await store.abandon(batch_id, claim.plan_id)

    await assert_nothing_live(world, batch_id, "cancelling")


async def test_a_cancelled_batch_whose_planner_died_is_tidied(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(20), cap=100)
    await die_with_a_whole_plan(world, batch_id)
    assert await world.reserved() == 20
    await world.cancel(batch_id)
    assert not await world.planner().step(), "the lease may still be somebody's"
    await world.expire_lease(batch_id)

    assert await world.planner().step()

    await assert_nothing_live(world, batch_id, "cancelling")
    assert not await world.planner().step()


async def assert_nothing_live(world: Any, batch_id: str, status: str) -> None:
    batch = await world.batch(batch_id)
    assert (batch["status"], batch["plan"], batch["planning"]) == (status, None, None)
    assert await world.segments(batch_id) == await world.shards(batch_id) == []
    assert await world.reserved() == 0


async def write_something(hold: Any) -> None:
    """A segment and a shard of the hold's plan."""
    document = {"_id": f"{hold.plan_id}:00000", "batch_id": hold.batch["_id"], "plan_id": hold.plan_id}
    await hold.insert_segments([{**document, "no": 0}])
    await hold.insert_shards([{**document, "no": 0, "state": "planned"}])


async def die_with_a_whole_plan(world: Any, batch_id: str) -> Any:
    """Everything of a plan is stored but the transition; the lease stays. Its claim."""
    claim = await world.claim("dead")
    async with claim.hold() as hold:
        assert await hold.reserve(20)
        await write_something(hold)
    return claim


async def test_a_crash_before_the_transition_leaves_the_next_plan_the_only_one(
    world: Any, make_lines: Any
) -> None:
    batch_id = await world.create(make_lines(20), cap=20)
    dead = await die_with_a_whole_plan(world, batch_id)
    await world.expire_lease(batch_id)

    assert await world.planner(shard=(10, 10_000_000)).step()

    batch = await world.batch(batch_id)
    plan_id = batch["plan"]["plan_id"]
    assert plan_id != dead.plan_id
    assert batch["status"] == "in_progress"
    assert batch["planning"] is None
    assert {s["plan_id"] for s in await world.segments(batch_id)} == {plan_id}
    assert [s["plan_id"] for s in await world.shards(batch_id)] == [plan_id] * 2
    assert await world.reserved() == 20


async def test_a_zombie_changes_nothing_of_its_successors_plan(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(20), cap=20)
    store = world.store("zombie")
    zombie = await store.claim(batch_id, NOW)
    async with zombie.hold() as hold:
        await world.expire_lease(batch_id)
        await world.planner().step()
        before = [await world.batch(batch_id), await world.segments(batch_id), await world.shards(batch_id)]

        await write_something(hold)
        assert await hold.reserve(20)
        assert not await hold.planned({"plan": None}, zombie.batch["created_at"])
        assert not await hold.refused({"errors": []}, zombie.batch["created_at"])
    await store.abandon(batch_id, zombie.plan_id)

    after = [await world.batch(batch_id), await world.segments(batch_id), await world.shards(batch_id)]
    assert after == before
    assert await world.reserved() == 20


async def test_a_zombie_reserves_nothing_behind_whoever_tidied_up(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(20), cap=100)
    zombie = await world.claim("zombie", 0.1)
    await world.cancel(batch_id)
    await eventually(lambda: world.planner().step(), timeout=10, what="the end of the zombie's lease")

    with pytest.raises(LeaseLost):
        async with zombie.hold() as hold:
            await hold.reserve(20)

    await assert_nothing_live(world, batch_id, "cancelling")


async def test_a_zombie_cannot_decide_while_its_successor_still_reads(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(20))
    now = (await world.batch(batch_id))["created_at"]
    zombie = await world.claim("zombie")
    async with zombie.hold() as hold:
        await world.expire_lease(batch_id)
        successor = await world.claim("b")

        assert not await hold.planned({"plan": {"plan_id": hold.plan_id}}, now)
        assert not await hold.refused({"errors": []}, now)

    assert await world.batch(batch_id) == successor.batch


async def test_abandoning_a_plan_that_won_after_all_keeps_it(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(20), cap=20)
    await world.planner().step()
    batch = await world.batch(batch_id)

    await world.store().abandon(batch_id, batch["plan"]["plan_id"])

    assert await world.batch(batch_id) == batch
    assert len(await world.shards(batch_id)) == 1
    assert await world.reserved() == 20


async def test_a_batch_that_kills_its_planners_fails_in_the_end(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(20), cap=20)
    await die_with_a_whole_plan(world, batch_id)
    await world.expire_lease(batch_id, attempt=5)

    error = await world.refusal(batch_id)

    assert error["code"] == "planning_failed"
    await assert_nothing_live(world, batch_id, "failed")


async def test_a_batch_gets_five_tries(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(20))
    await die_with_a_whole_plan(world, batch_id)
    await world.expire_lease(batch_id, attempt=4)

    await world.planner().step()

    assert (await world.batch(batch_id))["status"] == "in_progress"


async def test_the_lease_is_renewed_while_a_slow_input_is_read(world: Any, make_line: Any) -> None:
    line = make_line("a", content="x" * 255 * 1024 * 4)
    batch_id = await world.create(line)

    async def rival_fails() -> None:
        end = (await world.batch(batch_id))["lease"]["expires_at"]
        await eventually(lambda: SystemClock().now() > end, what="the end of the lease as it was")
        assert await world.store("rival").claim(batch_id, NOW) is None

    assert await world.planner(ttl=0.6, between=rival_fails).step()

    assert (await world.batch(batch_id))["status"] == "in_progress"


async def test_a_planner_that_lost_its_lease_stops_and_leaves_the_batch(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(20), cap=20)
    taken: list[Any] = []

    async def rival_takes_it() -> None:
        await world.expire_lease(batch_id)
        taken.append(await world.claim("rival"))
        await asyncio.Event().wait()

    assert await world.planner(ttl=0.6, between=rival_takes_it).step()

    batch = await world.batch(batch_id)
    assert batch["status"] == "validating"
    assert batch["lease"]["token"] == taken[0].batch["lease"]["token"]
    assert await world.segments(batch_id) == await world.shards(batch_id) == []
    assert await world.index_blobs() == []


async def test_the_reservation_stays_in_the_month_of_the_first_claim(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(20), cap=20)
    dead = await die_with_a_whole_plan(world, batch_id)
    await world.expire_lease(batch_id)
    await world.batches.mark(batch_id, {}, {"planning.month": "202001"})

    await world.planner().step()

    assert (await world.batch(batch_id))["plan"]["month"] == "202001"
    assert dead.batch["planning"]["month"] != "202001"
    assert await world.caps.used("org_a", "202001") == 20
