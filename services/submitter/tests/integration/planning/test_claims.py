"""Who plans which batch: one worker at a time, organisations in turn, found through an index."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from pymongo import MongoClient
from waiting import eventually

from floopy_common.chassis.clock import SystemClock
from floopy_common.stores import planning
from floopy_common.stores.planning import look
from floopy_submitter.core.kept import SMALL

NOW = SystemClock().now()


async def test_claim_skips_fresh_lease(world: Any) -> None:
    batch_id = await world.create(b"")

    first = await world.claim("a")
    second = await world.claim("b")

    assert first.batch["_id"] == batch_id
    assert (first.tries, first.is_first) == (1, True)
    assert second is None


async def test_claim_takes_an_expired_lease(world: Any) -> None:
    batch_id = await world.create(b"")
    dead = await world.claim("a", ttl=0.2)

    async def claimed() -> Any:
        return await world.claim("b")

    claim = await eventually(claimed, what="an expired lease claimed")

    assert claim.batch["_id"] == batch_id
    assert (claim.tries, claim.is_first) == (2, False)
    assert claim.plan_id != dead.plan_id


async def test_claim_takes_only_validating_batches(world: Any) -> None:
    for status in ("in_progress", "failed", "cancelling", "cancelled", "completed"):
        await world.create(b"", status=status)

    assert await world.claim() is None


async def test_the_longest_waiting_batch_of_an_organisation_comes_first(world: Any) -> None:
    late = await world.create(b"", created_at=NOW)
    early = await world.create(b"", created_at=NOW - timedelta(hours=1))

    claims = [await world.claim() for _ in range(2)]

    assert [claim.batch["_id"] for claim in claims] == [early, late]


async def test_organisations_take_turns(world: Any, make_lines: Any) -> None:
    for _ in range(3):
        await world.create(make_lines(1), org_id="org_busy", created_at=NOW - timedelta(hours=1))
    await world.create(make_lines(1), org_id="org_small", created_at=NOW)
    planner = world.planner()

    await planner.step()
    await planner.step()

    waiting = await world.batches.collection.find_all({"status": "validating"})
    assert {batch["org_id"] for batch in waiting} == {"org_busy"}
    assert len(waiting) == 2


async def test_as_many_as_fit_are_planned_side_by_side(world: Any, make_lines: Any) -> None:
    for number in range(7):
        await world.create(make_lines(2), org_id=f"org_{number % 2}")
    planner = world.planner(slots=5)

    assert await planner.step()
    assert await world.batches.collection.count({"status": "in_progress"}) == 5
    assert await planner.step()
    assert await world.batches.collection.count({"status": "in_progress"}) == 7
    assert not await planner.step()


async def test_small_batches_do_not_wait_for_large_ones(world: Any, make_lines: Any) -> None:
    large = await world.create(b"", org_id="org_a", created_at=NOW - timedelta(hours=1))
    await world.batches.mark(large, {}, {"input.bytes": SMALL + 1})
    small = [await world.create(make_lines(1), org_id=org) for org in ("org_a", "org_b")]

    queues = [await world.store().waiting("", 3, bound=SMALL, large=size) for size in (False, True)]

    assert [[(queue.org_id, queue.batch_ids) for queue in each] for each in queues] == [
        [("org_a", [small[0]]), ("org_b", [small[1]])],
        [("org_a", [large])],
    ]
    planned = await world.planner(slots=2).step()
    assert planned
    assert await world.batches.collection.count({"status": {"$ne": "validating"}}) == 3


@pytest.mark.parametrize("looked_through", [2, 2_000])
async def test_an_organisation_with_many_batches_hides_no_other(
    world: Any, monkeypatch: pytest.MonkeyPatch, looked_through: int
) -> None:
    monkeypatch.setattr(planning, "_LOOK", looked_through)
    busy = [await world.create(b"", org_id="org_b") for _ in range(5)]
    others = {org: await world.create(b"", org_id=org) for org in ("org_a", "org_c", "org_d")}

    async def first_of(after: str, most: int) -> list[tuple[str, str]]:
        queues = await world.store().waiting(after, most, bound=SMALL, large=False)
        return [(queue.org_id, queue.batch_ids[0]) for queue in queues]

    a, b, c, d = ("org_a", others["org_a"]), ("org_b", busy[0]), *((o, others[o]) for o in ("org_c", "org_d"))
    assert await first_of("", 4) == [a, b, c, d]
    assert await first_of("org_b", 4) == [c, d, a, b]
    assert (await first_of("org_a", 2))[:2] == [b, c]


async def test_planners_at_once_plan_every_batch_once(world: Any, make_lines: Any) -> None:
    ids = [await world.create(make_lines(3), org_id=f"org_{number % 3}") for number in range(9)]
    planners = [world.planner() for _ in range(3)]

    async def work(planner: Any) -> None:
        while await planner.step():
            pass

    await asyncio.gather(*(work(planner) for planner in planners))

    assert [(await world.batch(batch_id))["version"] for batch_id in ids] == [2] * 9
    assert [len(await world.shards(batch_id)) for batch_id in ids] == [1] * 9
    assert world.woken == ["planned"] * 9


async def test_claim_and_tidying_are_found_through_their_indexes(
    world: Any, mongo_uri: str, mongo_database: str
) -> None:
    await world.create(b"")

    with MongoClient[dict[str, Any]](mongo_uri) as client:
        batches = client[mongo_database]["batches"]
        command = {
            "aggregate": "batches",
            "pipeline": look({"$gt": ""}, 5, bound=SMALL, large=False),
            "cursor": {},
        }
        claim = client[mongo_database].command("explain", command)
        untidy = batches.find(
            {"planning.month": {"$exists": True}, "status": {"$ne": "validating"}}
        ).explain()
        planners = [claim["stages"][0]["$cursor"]["queryPlanner"], untidy["queryPlanner"]]
        plans = [str(planner["winningPlan"]) for planner in planners]

    assert "'indexName': 'org_id_created_at'" in plans[0]
    assert "'stage': 'SORT'" not in plans[0]
    assert "'indexName': 'planning_month'" in plans[1]
