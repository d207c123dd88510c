"""A process that was paused beyond its lease wakes up and changes nothing."""

import signal
from collections.abc import Callable
from typing import Any

import pytest
from waiting import eventually

from floopy_common.chassis.mongo import Mongo
from floopy_common.domain.errors import LeaseLost
from floopy_common.domain.shard import AttemptPhase
from floopy_common.stores.submitting import SubmitStore
from floopy_submitter.core.submit import _guard
from floopy_submitter.errors import TooLate


@pytest.mark.parametrize("op", ["files.create", "batches.create"])
async def test_a_process_paused_in_mid_call_leaves_the_shard_to_another(
    world: Any, new_process: Callable[[], Any], make_lines: Any, quiet: None, simulator: Any, op: str
) -> None:
    held = await simulator.fault(op, {"kind": "hold", "when": "after"})
    batch_id = await world.plan(make_lines(4), await world.account())
    paused, other = new_process(), new_process()
    await paused.start()
    await eventually(lambda: world.holding(held), what=f"a {op} under way")

    paused.send(signal.SIGSTOP)
    await other.start()
    (before,) = await world.in_state(batch_id, "submitted")
    await other.end()
    paused.send(signal.SIGCONT)
    await simulator.release(held)
    # what it does next shows that it is awake and has got over the shard it lost
    next_batch = await world.plan(make_lines(2), await world.account())
    await world.in_state(next_batch, "submitted")

    after = await world.shard(batch_id)
    assert (after["attempts"], after["provider_batch_id"]) == (
        before["attempts"],
        before["provider_batch_id"],
    )
    assert len(await simulator.calls("batches.create")) == 2
    assert len(await world.kept()) == 2
    assert await world.orphans() == []


async def test_a_process_paused_in_a_create_on_anthropic_leaves_the_one_batch_to_another(
    world: Any, new_process: Callable[[], Any], make_lines: Any, quiet: None, simulator: Any
) -> None:
    """What it made bears no name: another finds it by its time and size, and makes none of its own."""
    create = "messages.batches.create"
    skew = {"FLOOPY_SUBMIT__CLOCK_SKEW": "0.1"}
    held = await simulator.fault(create, {"kind": "hold", "when": "after"})
    account = await world.account(provider="anthropic")
    lines = make_lines(4, model="claude-haiku-4-5")
    batch_id = await world.create(lines, account, provider="anthropic")
    paused, other = new_process(), new_process()
    await paused.start(**skew)
    await eventually(lambda: world.holding(held), what="a create under way")

    paused.send(signal.SIGSTOP)
    await other.start(**skew)
    (before,) = await world.in_state(batch_id, "submitted")
    await other.end()
    paused.send(signal.SIGCONT)
    await simulator.release(held)
    next_batch = await world.create(lines[:2], account, provider="anthropic")
    await world.in_state(next_batch, "submitted")

    after = await world.shard(batch_id)
    assert [(a["phase"], a["resolution"]) for a in before["attempts"]] == [("created", "adopted_unproven")]
    assert (after["attempts"], after["provider_batch_id"]) == (
        before["attempts"],
        before["provider_batch_id"],
    )
    assert len(await simulator.calls(create)) == 2
    assert sorted(batch["lines"] for batch in await simulator.batches()) == [2, 4]
    assert await simulator.calls("messages.batches.cancel") == []
    assert await world.orphans() == []


async def test_a_worker_whose_lease_was_taken_over_can_write_nothing(
    world: Any, mongo: Mongo, make_lines: Any
) -> None:
    batch_id = await world.plan(make_lines(1), await world.account())
    first, second = SubmitStore(mongo, "first", 0.3), SubmitStore(mongo, "second", 30)
    shard = await world.shard(batch_id)
    claim = await first.claim(shard)
    assert claim is not None
    assert await second.claim(shard) is None
    taken = await eventually(lambda: second.claim(shard), what="the lease to run out")

    before = await world.shard(batch_id)
    with pytest.raises(LeaseLost):
        async with claim.hold() as hold:
            hold.prepared("file-1")
            await hold.fence(0)

    assert await world.shard(batch_id) == before
    async with taken.hold() as hold:
        hold.prepared("file-2")
        await hold.hand_back(0)
    [attempt] = (await world.shard(batch_id))["attempts"]
    assert (attempt["phase"], attempt["input_file_id"]) == (AttemptPhase.PREPARED, "file-2")


async def test_a_fenced_shard_is_searched_and_never_claimed_again(
    world: Any, mongo: Mongo, make_lines: Any
) -> None:
    batch_id = await world.plan(make_lines(1), await world.account())
    store = SubmitStore(mongo, "first", 0.3)
    claim = await store.claim(await world.shard(batch_id))
    assert claim is not None
    async with claim.hold() as hold:
        hold.prepared("file-1")
        await hold.fence(0)
    shard = await world.shard(batch_id)

    unclear = await eventually(store.next_unclear, what="the lease to run out")

    assert unclear["_id"] == shard["_id"]
    assert await store.due(1) == []
    assert await store.claim(shard) is None
    assert await store.claim_search(shard) is not None


async def test_the_guard_lets_no_call_out_that_the_lease_would_not_cover(
    world: Any, mongo: Mongo, make_lines: Any
) -> None:
    batch_id = await world.plan(make_lines(1), await world.account())
    store = SubmitStore(mongo, "first", 5)
    claim = await store.claim(await world.shard(batch_id))
    assert claim is not None

    async with claim.hold() as hold:
        await hold.extend(20)
        now = hold._live.deadline - 20
        _guard(hold, now + 15, None)()
        with pytest.raises(TooLate):
            _guard(hold, now + 25, None)()
        with pytest.raises(TooLate):
            _guard(hold, now - 1, None)()
        hold._live.lost = True
        with pytest.raises(TooLate):
            _guard(hold, now + 15, None)()


async def test_clocks_of_processes_do_not_decide_who_owns_a_shard(
    world: Any, mongo: Mongo, make_lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = await world.plan(make_lines(1), await world.account())
    store = SubmitStore(mongo, "first", 30)
    assert await store.claim(await world.shard(batch_id)) is not None

    monkeypatch.setattr("time.time", lambda: 4_000_000_000.0)

    assert await store.due(1) == []
    assert await SubmitStore(mongo, "second", 30).claim(await world.shard(batch_id)) is None
