"""A create whose outcome is unknown is looked for, adopted, or given up; nothing is kept twice."""

import pytest
from waiting import eventually

from floopy_common.domain.shard import AttemptPhase, WaitReason

CREATE = "batches.create"
LIST = "batches.list"


@pytest.mark.parametrize(
    "action",
    [
        {"kind": "drop", "when": "after"},
        {"kind": "status", "status": 500, "when": "after"},
        {"kind": "status", "status": 409, "when": "after"},
        {"kind": "status", "status": 408, "when": "after"},
        {"kind": "garbage"},
        {"kind": "delay", "seconds": 4, "when": "after"},
    ],
    ids=["drop", "500", "409", "408", "garbage", "too late"],
)
async def test_an_accepted_create_whose_answer_was_lost_is_adopted(
    world, running, make_lines, quiet, simulator, action
) -> None:
    await simulator.fault(CREATE, action)
    batch_id = await world.plan(make_lines(3), await world.account())

    async with running():
        (shard,) = await world.in_state(batch_id, "submitted")

    assert len(await simulator.calls(CREATE)) == 1
    assert [(a["phase"], a["resolution"]) for a in shard["attempts"]] == [(AttemptPhase.CREATED, "adopted")]
    assert len(shard["outbox"]) == 1
    await world.assert_one_kept_for_each(batch_id)


@pytest.mark.parametrize(
    "action",
    [{"kind": "drop", "when": "before"}, {"kind": "status", "status": 503}, {"kind": "delay", "seconds": 4}],
    ids=["drop", "503", "too late"],
)
async def test_a_create_that_was_not_accepted_is_tried_anew_after_the_settle_window(
    world, running, make_lines, quiet, simulator, action
) -> None:
    await simulator.fault(CREATE, action)
    batch_id = await world.plan(make_lines(3), await world.account())

    async with running():
        (shard,) = await world.in_state(batch_id, "submitted")

    first, second = await simulator.calls(CREATE)
    assert second["at"] - first["at"] >= 3
    given_up, created = shard["attempts"]
    assert (given_up["phase"], created["phase"]) == (AttemptPhase.ABANDONED, AttemptPhase.CREATED)
    assert given_up["looks"] >= 3
    assert given_up["nonce"] != created["nonce"]
    assert given_up["input_file_id"] != created["input_file_id"]
    await world.assert_one_kept_for_each(batch_id)


async def test_a_list_that_cannot_be_read_decides_nothing(
    world, running, make_lines, quiet, simulator
) -> None:
    await simulator.fault(CREATE, {"kind": "drop", "when": "after"})
    down = await simulator.fault(LIST, {"kind": "status", "status": 500}, times=None)
    batch_id = await world.plan(make_lines(1), await world.account())

    async with running():
        await world.in_state(batch_id, "submit_unknown")
        await eventually(lambda: world.hits(down, 6), timeout=20, what="looks that failed")
        shard = await world.shard(batch_id)
        assert shard["state"] == "submit_unknown"
        assert shard["attempts"][-1]["looks"] == 0
        assert len(await simulator.calls(CREATE)) == 1
        await world.repair(down)
        await world.in_state(batch_id, "submitted")

    await world.assert_one_kept_for_each(batch_id)


async def test_the_window_alone_does_not_give_an_attempt_up(
    world, running, make_lines, quiet, simulator
) -> None:
    await simulator.fault(CREATE, {"kind": "drop", "when": "before"})
    await simulator.fault(LIST, {"kind": "status", "status": 503}, times=4)
    batch_id = await world.plan(make_lines(1), await world.account())

    async with running(FLOOPY_SUBMIT__SETTLE_LOOKS="2"):
        (shard,) = await world.in_state(batch_id, "submitted")

    calls = await simulator.calls(LIST)
    assert shard["attempts"][0]["looks"] >= 2
    assert len([call for call in calls if call["status"] == 200]) >= 2


async def test_a_batch_listed_too_late_is_cancelled_and_noted_with_its_bound(
    world, running, make_lines, quiet, simulator
) -> None:
    await simulator.configure(list_lag=6)
    await simulator.fault(CREATE, {"kind": "drop", "when": "after"})
    batch_id = await world.plan(make_lines(7), await world.account())

    async with running():
        await world.in_state(batch_id, "submitted")
        (orphan,) = await eventually(world.settled_orphans, what="a cancelled orphan")

    shard = await world.shard(batch_id)
    given_up, created = shard["attempts"]
    assert (given_up["phase"], created["phase"]) == (AttemptPhase.ABANDONED, AttemptPhase.CREATED)
    assert (orphan["attempt_id"], orphan["reason"]) == (given_up["id"], "late")
    assert (orphan["lines_bound"], orphan["status"]) == (7, "cancelled")
    await world.assert_one_kept_for_each(batch_id)
    await simulator.assert_nothing_twice()


async def test_after_too_many_unknown_attempts_an_operator_decides(
    world, running, make_lines, quiet, simulator
) -> None:
    await simulator.fault(CREATE, {"kind": "drop", "when": "before"}, times=None)
    batch_id = await world.plan(make_lines(1), await world.account())

    async with running(FLOOPY_SUBMIT__MAX_ATTEMPTS="2", FLOOPY_SUBMIT__SETTLE_LOOKS="1"):
        (shard,) = await world.in_state(batch_id, "waiting")

    assert shard["waiting"]["reason"] == WaitReason.OPERATOR
    assert shard["waiting"]["next_attempt_at"] is None
    assert [attempt["phase"] for attempt in shard["attempts"]] == [AttemptPhase.ABANDONED] * 2
    async with running():
        other = await world.plan(make_lines(1), await world.account())
        await world.in_state(other, "submit_unknown")
    assert (await world.shard(batch_id))["state"] == "waiting"


async def test_of_several_the_oldest_is_kept(world, running, make_lines, quiet, simulator) -> None:
    key = "sk-several"
    await simulator.fault(CREATE, {"kind": "drop", "when": "after"})
    down = await simulator.fault(LIST, {"kind": "status", "status": 500}, times=None)
    batch_id = await world.plan(make_lines(2), await world.account(key))

    async with running():
        (shard,) = await world.in_state(batch_id, "submit_unknown")
        await simulator.advance_clock(5)
        await world.create_upstream(key, shard["attempts"][-1]["input_file_id"])
        await world.repair(down)
        await world.in_state(batch_id, "submitted")
        (orphan,) = await eventually(world.settled_orphans, what="a cancelled orphan")

    oldest, younger = await simulator.batches()
    assert (await world.shard(batch_id))["provider_batch_id"] == oldest["id"]
    assert (orphan["provider_batch_id"], orphan["reason"]) == (younger["id"], "duplicate")
    await world.assert_one_kept_for_each(batch_id)


async def test_what_a_shard_ended_in_mid_create_has_left_is_cancelled(
    world, running, make_lines, quiet, simulator
) -> None:
    await simulator.fault(CREATE, {"kind": "drop", "when": "after"})
    down = await simulator.fault(LIST, {"kind": "status", "status": 500}, times=None)
    batch_id = await world.plan(make_lines(2), await world.account())

    async with running():
        (shard,) = await world.in_state(batch_id, "submit_unknown")
        await world.end_overdue(shard)
        await world.repair(down)
        (orphan,) = await eventually(world.settled_orphans, what="a cancelled orphan")

    assert (await world.shard(batch_id))["state"] == "settled"
    assert (orphan["reason"], orphan["lines_bound"]) == ("late", 2)
    assert await world.kept() == []


async def test_the_sweep_ends_when_nothing_can_turn_up_any_more(
    world, running, make_lines, quiet, simulator
) -> None:
    await simulator.fault(CREATE, {"kind": "drop", "when": "before"})
    batch_id = await world.plan(make_lines(1), await world.account())

    async with running(FLOOPY_SUBMIT__SWEEP_FOR="1"):
        await world.in_state(batch_id, "submitted")
        await eventually(lambda: world.swept(batch_id), what="the end of the sweep")

    assert await world.orphans() == []


async def test_a_stolen_lease_makes_the_creator_a_zombie_that_cleans_up(
    world, running, make_lines, quiet, simulator
) -> None:
    fault = await simulator.fault(CREATE, {"kind": "hold", "when": "after"})
    batch_id = await world.plan(make_lines(2), await world.account())

    async with running("submitting"):
        await eventually(lambda: world.holding(fault), what="a create under way")
        await world.end_overdue(await world.shard(batch_id))
        await simulator.release(fault)
        (orphan,) = await eventually(world.orphans, what="an orphan")
    async with running("sweeping"):
        await eventually(world.settled_orphans, what="a cancelled orphan")

    assert orphan["reason"] == "zombie"
    assert (await world.shard(batch_id))["provider_batch_id"] is None
    assert await world.kept() == []


async def test_an_orphan_that_a_shard_counts_on_is_left_alone(
    world, running, make_lines, quiet, simulator
) -> None:
    batch_id = await world.plan(make_lines(1), await world.account())
    async with running():
        (shard,) = await world.in_state(batch_id, "submitted")
        await world.note_orphan(shard, shard["provider_batch_id"])
        (orphan,) = await eventually(world.settled_orphans, what="an orphan looked at")

    assert orphan["status"] == "wanted"
    await world.assert_one_kept_for_each(batch_id)


async def test_a_provider_batch_that_was_detached_is_not_adopted_again(
    world, running, make_lines, quiet, simulator
) -> None:
    batch_id = await world.plan(make_lines(1), await world.account())
    async with running():
        (shard,) = await world.in_state(batch_id, "submitted")
    await world.detach(shard)

    async with running():
        (again,) = await world.in_state(batch_id, "submitted")

    assert again["provider_batch_id"] != shard["provider_batch_id"]
    assert [a["phase"] for a in again["attempts"]] == [AttemptPhase.ABANDONED, AttemptPhase.CREATED]
