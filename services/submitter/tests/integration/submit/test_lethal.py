"""What kills its workers is worked on alone by real processes, left alone for a while, and never given up."""

import signal
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import MongoClient
from waiting import eventually

from floopy_common.stores.due_shards import LETHAL
from floopy_common.stores.submitting import SubmitStore
from floopy_submitter.core.due import SUBMITTING

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


async def _die(process: Any, name: str) -> None:
    await process.start(FLOOPY_FAIL_AT=name)
    assert await process.died() == -signal.SIGKILL, process.log.read_text()[-3000:]


async def test_a_planner_that_dies_again_and_again_takes_nothing_with_it_twice(
    world, new_process, make_lines, quiet
) -> None:
    account = await world.account()
    ids = [await world.create(make_lines(1), account) for _ in range(3)]
    process = new_process()

    async def tries() -> list[int]:
        return sorted([(await world.batch(batch_id))["lease"]["attempt"] for batch_id in ids])

    seen = []
    for _ in range(3):
        await _die(process, "plan.after_claim")
        seen.append(await tries())
    await process.start()
    for batch_id in ids:
        await eventually(lambda batch_id=batch_id: world.shards(batch_id), what="a plan")
        await world.in_state(batch_id, "submitted")

    assert seen == [[1, 1, 1], [1, 1, 2], [1, 2, 2]]


async def test_a_submitter_that_dies_again_and_again_takes_nothing_with_it_three_times(
    world, new_process, make_lines, quiet
) -> None:
    batch_id = await world.plan(make_lines(3), await world.account(), shard_lines=1)
    process = new_process()

    async def deaths() -> list[int]:
        return sorted(shard["lease"]["deaths"] for shard in await world.shards(batch_id))

    seen = []
    for _ in range(4):
        await _die(process, "submit.after_claim")
        seen.append(await deaths())
    await process.start()
    for resting in await eventually(lambda: _resting(world, batch_id, 2), what="two left alone"):
        await world.update("shards", resting["_id"], submit_at=LONG_AGO)
    await world.in_state(batch_id, "submitted")

    assert seen == [[0, 0, 0], [1, 1, 1], [1, 1, 2], [1, 2, 2]]
    assert await deaths() == [0, 0, 0]
    await world.assert_one_kept_for_each(batch_id)


async def _resting(world: Any, batch_id: str, count: int) -> list[dict[str, Any]] | None:
    shards = [shard for shard in await world.shards(batch_id) if shard.get("submit_at") is not None]
    return shards if len(shards) == count else None


async def _has_killed(world: Any, batch_id: str, deaths: int) -> None:
    """Its submitters, the last of whom nobody has counted yet."""
    lease = {"token": "token", "owner": "dead", "expires_at": LONG_AGO, "attempt": 1, "deaths": deaths - 1}
    await world.update("shards", (await world.shard(batch_id))["_id"], state="submitting", lease=lease)


async def test_a_shard_that_kills_its_submitters_is_left_alone_for_a_while_and_tried_again(
    world, running, make_lines, quiet
) -> None:
    deadly = await world.plan(make_lines(1), await world.account())
    await _has_killed(world, deadly, 3)

    async with running():
        await world.in_state(deadly, "planned")
        left = await world.shard(deadly)
        other = await world.plan(make_lines(1), await world.account())
        await world.in_state(other, "submitted")
        still = await world.shard(deadly)
        await world.update("shards", left["_id"], submit_at=LONG_AGO)
        await world.in_state(deadly, "submitted")

    assert left["submit_at"] > datetime.now(UTC) + timedelta(seconds=10)
    assert (still["state"], still["lease"]["deaths"], still["lease"]["token"]) == ("planned", 3, None)
    assert (await world.shard(deadly))["lease"]["deaths"] == 0


async def test_a_deadly_shard_waits_until_it_is_alone_and_others_wait_for_it(
    world, running, make_lines, quiet, simulator
) -> None:
    slow = await world.plan(make_lines(1), await world.account("sk-slow"))
    held = await simulator.fault("files.create", {"kind": "hold"}, key="sk-slow")

    async with running() as wiring:
        await eventually(lambda: world.holding(held), what="an upload under way")
        deadly = await world.plan(make_lines(1), await world.account("sk-deadly"))
        await _has_killed(world, deadly, 2)

        async def is_awaited() -> bool:
            return not _may_submit(wiring)

        await eventually(is_awaited, what="others kept away")
        new = await world.plan(make_lines(1), await world.account("sk-new"))
        await simulator.release(held)
        for batch_id in (slow, deadly, new):
            await world.in_state(batch_id, "submitted")

    began = {call["key"]: call["at"] for call in await simulator.calls("files.create")}
    ended = {call["key"]: call["at"] for call in await simulator.calls("batches.create")}
    assert ended["sk-slow"] < began["sk-deadly"] < ended["sk-deadly"] < began["sk-new"]


def _may_submit(wiring: Any) -> bool:
    with wiring.solitude.beginning(SUBMITTING) as may_begin:
        return bool(may_begin)


async def test_what_may_be_deadly_is_found_through_its_index_and_by_nobody_else(
    world, make_lines, mongo, mongo_uri: str, mongo_database: str
) -> None:
    deadly = await world.plan(make_lines(1), await world.account())
    await world.plan(make_lines(20), await world.account(), shard_lines=1)
    await _has_killed(world, deadly, 2)
    store = SubmitStore(mongo, "test", 5)

    with MongoClient[dict[str, Any]](mongo_uri) as client:
        found = client[mongo_database]["shards"].find(LETHAL).explain()

    assert found["executionStats"]["totalDocsExamined"] == 1
    assert (await store.next_lethal())["batch_id"] == deadly
    assert deadly not in {row["batch_id"] for row in await store.due(30)}
    await _has_killed(world, deadly, 1)
    assert await store.next_lethal() is None
    assert deadly in {row["batch_id"] for row in await store.due(30)}
