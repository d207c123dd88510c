"""A batch on Anthropic: translated, sent once, found again though it bears no name of ours."""

from datetime import UTC, datetime
from typing import Any

import pytest
from floopy_batches.claude import CREATE, KEY, LIST
from floopy_providers.claude import elements_of, in_pieces
from pydantic import SecretStr
from waiting import eventually

from floopy_common.domain.shard import AttemptPhase, WaitReason
from floopy_common.providers.anthropic.client import AnthropicBatches
from floopy_common.providers.api import Access
from floopy_common.providers.http import open_connections
from floopy_common.providers.port import AttemptInput, CreateRequest
from floopy_common.stores.create_turns import CreateTurnStore
from floopy_common.stores.orphans import SweepStore

CHAT = "/v1/chat/completions"


async def somebody_elses(simulator: Any, lines: int) -> str:
    """A message batch of the same workspace that is none of ours."""
    async with open_connections() as connections:
        access = Access(simulator.anthropic_base_url, SecretStr(KEY))
        client = AnthropicBatches(access, connections, version="2023-06-01", create_timeout=5)
        content = elements_of(lines, "otherjob00")
        upload = AttemptInput("other", len(content), in_pieces(content))
        return (await client.create(CreateRequest("other", "n", CHAT, None, lambda: None, input=upload))).id


def attempts_of(shard: dict[str, Any]) -> list[tuple[str, str | None]]:
    return [(attempt["phase"], attempt["resolution"]) for attempt in shard["attempts"]]


async def test_every_line_is_translated_and_sent_once(world, claude, claude_lines, start, simulator) -> None:
    batch_id = await start(claude_lines(25))

    async with claude(FLOOPY_PROVIDERS__ANTHROPIC__SHARD_LINES="10"):
        await eventually(lambda: world.executed(25), what="every line executed")
        shards = await world.in_state(batch_id, "submitted")

    assert [shard["lines"] for shard in shards] == [10, 10, 5]
    ledger = {batch["id"]: batch for batch in await simulator.batches()}
    assert sorted(ledger) == sorted(shard["provider_batch_id"] for shard in shards)
    assert sum(batch["completed"] for batch in ledger.values()) == 25
    calls = await simulator.calls(CREATE)
    assert [call["status"] for call in calls] == [200] * 3
    await simulator.assert_nothing_twice()
    sent = {row["custom_id"] for row in await simulator.executions()}
    assert sent == {f"{shards[(line - 1) // 10]['attempts'][-1]['nonce']}-{line}" for line in range(1, 26)}


@pytest.mark.edge(3)
async def test_a_create_whose_answer_was_lost_is_adopted_by_its_time_and_size(
    world, claude, claude_lines, start, quiet, simulator
) -> None:
    await simulator.fault(CREATE, {"kind": "drop", "when": "after"})
    batch_id = await start(claude_lines(3))

    async with claude():
        (shard,) = await world.in_state(batch_id, "submitted")

    assert attempts_of(shard) == [(AttemptPhase.CREATED, "adopted_unproven")]
    assert len(await simulator.calls(CREATE)) == 1
    await world.assert_one_kept_for_each(batch_id)


@pytest.mark.edge(4)
async def test_an_overloaded_provider_is_asked_before_it_is_tried_again(
    world, claude, claude_lines, start, quiet, simulator
) -> None:
    await simulator.fault(CREATE, {"kind": "status", "status": 529})
    batch_id = await start(claude_lines(3))

    async with claude():
        (shard,) = await world.in_state(batch_id, "submitted")

    first, second = await simulator.calls(CREATE)
    assert second["at"] - first["at"] >= 3
    assert len(await simulator.calls(LIST)) >= 3
    assert attempts_of(shard) == [(AttemptPhase.ABANDONED, "not_found"), (AttemptPhase.CREATED, None)]
    await world.assert_one_kept_for_each(batch_id)


async def test_a_batch_that_is_listed_late_is_found_within_the_window(
    world, claude, claude_lines, start, quiet, simulator
) -> None:
    await simulator.configure(list_lag=1.5)
    await simulator.fault(CREATE, {"kind": "drop", "when": "after"})
    batch_id = await start(claude_lines(3))

    async with claude():
        await world.in_state(batch_id, "submitted")

    assert len(await simulator.calls(CREATE)) == 1
    await world.assert_one_kept_for_each(batch_id)


async def test_of_two_that_look_alike_the_results_tell_and_nothing_is_spent_until_then(
    world, claude, claude_lines, start, quiet, simulator
) -> None:
    held = await simulator.fault(CREATE, {"kind": "hold", "when": "after"})
    batch_id = await start(claude_lines(3))

    async with claude(FLOOPY_SUBMIT__CREATE_TIMEOUT="1.5", FLOOPY_SUBMIT__SETTLE_WINDOW="2"):
        await eventually(lambda: world.holding(held), what="a create under way")
        foreign = await somebody_elses(simulator, 3)
        await world.in_state(batch_id, "submit_unknown")

        async def looked_long_enough() -> bool:
            return (await world.shard(batch_id))["attempts"][-1]["looks"] >= 5

        await eventually(looked_long_enough, what="looks that decide nothing")
        assert (await world.shard(batch_id))["state"] == "submit_unknown"
        for batch in await simulator.batches():
            await simulator.advance(batch["id"], "ended")
        (shard,) = await world.in_state(batch_id, "submitted")

    assert attempts_of(shard) == [(AttemptPhase.CREATED, "adopted")]
    assert shard["provider_batch_id"] != foreign
    assert len(await simulator.calls(CREATE)) == 2
    assert await world.orphans() == []
    await simulator.release(held)


async def test_a_wrong_guess_is_found_out_by_its_results_and_nothing_of_others_is_touched(
    world, claude, claude_lines, start, quiet, simulator
) -> None:
    down = await simulator.fault(LIST, {"kind": "status", "status": 500}, times=None)
    await simulator.fault(CREATE, {"kind": "status", "status": 500})
    batch_id = await start(claude_lines(3))

    async with claude():
        await world.in_state(batch_id, "submit_unknown")
        foreign = await somebody_elses(simulator, 3)
        await world.repair(down)
        (shard,) = await world.in_state(batch_id, "submitted")
        assert shard["provider_batch_id"] == foreign
        await simulator.advance(foreign, "ended")
        await world.detach(shard)

        async def resubmitted() -> Any:
            shard = await world.shard(batch_id)
            return shard if shard["provider_batch_id"] not in {None, foreign} else None

        shard = await eventually(resubmitted, what="another attempt")

    assert shard["foreign"] == [foreign]
    assert await simulator.calls("messages.batches.cancel") == []
    assert await world.orphans() == []
    assert await world.kept() == [shard["provider_batch_id"]]


async def test_creates_of_one_account_take_turns(
    world, claude, claude_lines, start, quiet, simulator
) -> None:
    slow, other = await world.account(KEY, "anthropic"), await world.account("sk-ant-other", "anthropic")
    held = await simulator.fault(CREATE, {"kind": "hold", "when": "after"}, key=KEY)
    first, second = await start(claude_lines(2), slow), await start(claude_lines(2), slow)
    third = await start(claude_lines(2), other)

    async with claude(FLOOPY_SUBMIT__CREATE_TIMEOUT="20", FLOOPY_SUBMIT__SETTLE_WINDOW="30"):
        await eventually(lambda: world.holding(held), what="a create under way")
        await world.in_state(third, "submitted")
        assert len([call for call in await simulator.calls(CREATE) if call["key"] == KEY]) == 1
        await simulator.release(held)
        await world.in_state(first, "submitted")
        await world.in_state(second, "submitted")

    assert len(await simulator.calls(CREATE)) == 3


async def test_a_turn_is_nobody_elses_and_none_is_given_while_a_create_is_unclear(world, mongo) -> None:
    turns = CreateTurnStore(mongo)
    shards = mongo.collection("shards")
    mine, theirs = {"_id": "a", "account_id": "acct"}, {"_id": "b", "account_id": "acct"}

    turn = await turns.take(mine, 60, 10)
    assert turn is not None
    assert 59 < turn.seconds_left() <= 60
    assert await turns.take(theirs, 60, 10) is None
    assert await turns.take({**theirs, "account_id": "other"}, 60, 10) is not None
    await turn.give_back()
    await shards.insert_new({**mine, "attempts": [{"phase": "creating", "creating_at": None}]})
    await shards.update_one({"_id": "a"}, [{"$set": {"attempts.creating_at": "$$NOW"}}])
    assert await turns.take(theirs, 60, 10) is None
    assert await turns.take(theirs, 60, 0) is not None


async def test_no_turn_is_given_while_an_attempt_that_was_just_given_up_could_be_taken_for_it(
    world, mongo
) -> None:
    turns, shards = CreateTurnStore(mongo), mongo.collection("shards")
    await shards.insert_new({"_id": "a", "account_id": "acct", "state": "settled"})
    attempt = {"id": "att", "phase": "unknown", "creating_at": datetime.now(UTC)}
    await shards.update_one({"_id": "a"}, {"$set": {"attempts": [attempt]}})
    assert await SweepStore(mongo).give_up_ended()

    assert await turns.take({"_id": "b", "account_id": "acct"}, 60, 10) is None
    assert await turns.take({"_id": "b", "account_id": "acct"}, 60, 0) is not None


@pytest.mark.edge(6)
async def test_a_batch_too_large_for_the_provider_is_split(
    world, claude, claude_lines, start, simulator
) -> None:
    await simulator.configure(max_batch_bytes=1_500)
    batch_id = await start(claude_lines(20))

    async with claude():
        await eventually(lambda: world.executed(20), what="every line executed")
        shards = await world.in_state(batch_id, "submitted")

    assert len(shards) > 1
    assert sorted(row["custom_id"].partition("-")[2] for row in await simulator.executions()) == sorted(
        str(number) for number in range(1, 21)
    )
    assert len(await simulator.batches()) == len(shards)


@pytest.mark.edge(5)
async def test_a_spending_limit_parks_the_shard_where_everybody_sees_it(
    world, claude, claude_lines, start, quiet, simulator
) -> None:
    await simulator.fault(CREATE, {"kind": "status", "status": 429})
    batch_id = await start(claude_lines(2))

    async with claude():
        (shard,) = await world.in_state(batch_id, "waiting")
        assert (shard["waiting"]["reason"], shard["waiting"]["backoff"]) == (WaitReason.BLOCKED, 2)
        await world.in_state(batch_id, "submitted")

    await world.assert_one_kept_for_each(batch_id)


async def test_a_late_batch_is_an_orphan_once_its_results_prove_it_and_not_before(
    world, claude, claude_lines, start, quiet, simulator
) -> None:
    await simulator.configure(list_lag=3.5)
    await simulator.fault(CREATE, {"kind": "drop", "when": "after"})
    batch_id = await start(claude_lines(3))

    async with claude(FLOOPY_SUBMIT__SETTLE_WINDOW="2.5"):
        (shard,) = await world.in_state(batch_id, "submitted")
        (late,) = [b["id"] for b in await simulator.batches() if b["id"] != shard["provider_batch_id"]]
        looks = len(await simulator.calls(LIST))

        async def swept_twice() -> bool:
            return len(await simulator.calls(LIST)) >= looks + 2

        await simulator.configure(list_lag=0)
        await eventually(swept_twice, what="sweeps that see it")
        assert await world.orphans() == []
        assert await simulator.calls("messages.batches.cancel") == []
        await simulator.advance(late, "ended")
        (orphan,) = await eventually(world.settled_orphans, what="the orphan noted")

    assert (orphan["provider_batch_id"], orphan["reason"]) == (late, "late")
    assert orphan["counts"]["completed"] == 3
