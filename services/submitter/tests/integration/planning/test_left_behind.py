"""An input that kills its planners is refused in the end, and what was planned beside it is not."""

from typing import Any

import pytest
from pymongo import MongoClient

from floopy_common.stores import planning


class Deadly:
    """The planner; to begin with the guilty batch is the end of the process."""

    def __init__(self, planner: Any, guilty: str) -> None:
        self._planner = planner
        self._guilty = guilty
        self.is_dead = False

    async def plan(self, claim: Any) -> None:
        if claim.batch["_id"] == self._guilty and claim.tries <= 5:
            self.is_dead = True
        if not self.is_dead:
            await self._planner.plan(claim)


@pytest.mark.parametrize("slots", [1, 16])
async def test_only_the_guilty_is_refused(world: Any, make_lines: Any, slots: int) -> None:
    ids = [await world.create(make_lines(2), org_id=f"org_{number % 3}") for number in range(9)]
    guilty = ids[0]
    deaths = 0
    while deaths < 9 and await world.batches.collection.count({"status": "validating"}):
        steps = world.planner(slots=slots)
        deadly = steps.planned_by(lambda planner: Deadly(planner, guilty))
        while not deadly.is_dead and await steps.step():
            pass
        deaths += deadly.is_dead
        await world.batches.collection.update_many(
            {"status": "validating", "lease": {"$ne": None}}, {"$set": {"lease.expires_at": world.long_ago}}
        )

    batches = {batch_id: await world.batch(batch_id) for batch_id in ids}
    assert {batch_id for batch_id, batch in batches.items() if batch["status"] == "failed"} == {guilty}
    assert batches[guilty]["errors"][0]["code"] == "planning_failed"
    assert deaths == 5


async def test_what_a_planner_left_is_planned_when_no_other_is(world: Any, make_lines: Any) -> None:
    left = sorted([await world.create(make_lines(1), org_id="org_a") for _ in range(2)])
    for _ in left:
        await world.claim("dead")
    for batch_id in left:
        await world.expire_lease(batch_id)
    new = await world.create(make_lines(1), org_id="org_b")
    steps = world.planner(slots=5)

    async def waiting() -> set[str]:
        found = await world.batches.collection.find_all({"status": "validating"})
        return {batch["_id"] for batch in found}

    seen = []
    while await waiting():
        await steps.step()
        seen.append(await waiting())

    assert seen == [{left[1]}, set()]
    assert (await world.batch(new))["status"] == "in_progress"


async def test_what_a_planner_left_is_found_through_an_index(
    world: Any, mongo_uri: str, mongo_database: str
) -> None:
    left = await world.create(b"")
    await world.claim("dead")
    for _ in range(20):
        await world.create(b"")
    await world.expire_lease(left)

    with MongoClient[dict[str, Any]](mongo_uri) as client:
        found = client[mongo_database]["batches"].find(planning._LEFT).explain()

    assert found["executionStats"]["totalDocsExamined"] == 1
    assert (await world.store().left_behind())["_id"] == left
