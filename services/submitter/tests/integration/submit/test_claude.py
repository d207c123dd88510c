"""A batch on Anthropic: translated, sent once, found again though it bears no name of ours."""

import json
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from floopy_providers.claude import elements_of, in_pieces
from pydantic import SecretStr

from floopy_common.domain.index import unpack_result
from floopy_common.domain.shard import AttemptPhase, WaitReason
from floopy_common.providers.anthropic.client import AnthropicBatches
from floopy_common.providers.anthropic.request import TRANSLATOR_VERSION
from floopy_common.providers.api import Access
from floopy_common.providers.formats import RESULT_FORMATS
from floopy_common.providers.http import open_connections
from floopy_common.providers.port import AttemptInput, CreateRequest
from floopy_common.stores.create_turns import CreateTurnStore
from floopy_common.stores.orphans import SweepStore

CREATE = "messages.batches.create"
LIST = "messages.batches.list"
CHAT = "/v1/chat/completions"
KEY = "sk-ant-of-this-test"
PARTS = ("planning", "submitting", "recovering", "sweeping")
SKEW = {"FLOOPY_SUBMIT__CLOCK_SKEW": "0.1"}
"""The simulator and the database share this machine's clock."""


@pytest.fixture
def start(world: Any) -> Callable[..., Any]:
    """A batch on Anthropic as the API leaves it; its id."""

    async def start(lines: list[bytes], account_id: str | None = None) -> str:
        account_id = account_id or await world.account(KEY, "anthropic")
        return str(await world.create(lines, account_id, provider="anthropic"))

    return start


@pytest.fixture
def claude_lines(make_lines: Any) -> Callable[..., list[bytes]]:
    return lambda count, **more: make_lines(count, model="claude-haiku-4-5", **more)


@pytest.fixture
def claude(running: Any) -> Callable[..., Any]:
    return lambda **settings: running(*PARTS, **{**SKEW, **settings})


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


async def test_every_line_is_translated_and_sent_once(
    world, claude, claude_lines, start, simulator, eventually
) -> None:
    batch_id = await start(claude_lines(25))

    async with claude(FLOOPY_PROVIDERS__ANTHROPIC__SHARD_LINES="10"):
        await eventually(lambda: world.executed(25), "every line executed")
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
    world, claude, claude_lines, start, quiet, simulator, eventually
) -> None:
    held = await simulator.fault(CREATE, {"kind": "hold", "when": "after"})
    batch_id = await start(claude_lines(3))

    async with claude(FLOOPY_SUBMIT__CREATE_TIMEOUT="1.5", FLOOPY_SUBMIT__SETTLE_WINDOW="2"):
        await eventually(lambda: world.holding(held), "a create under way")
        foreign = await somebody_elses(simulator, 3)
        await world.in_state(batch_id, "submit_unknown")

        async def looked_long_enough() -> bool:
            return (await world.shard(batch_id))["attempts"][-1]["looks"] >= 5

        await eventually(looked_long_enough, "looks that decide nothing")
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
    world, claude, claude_lines, start, quiet, simulator, eventually
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

        shard = await eventually(resubmitted, "another attempt")

    assert shard["foreign"] == [foreign]
    assert await simulator.calls("messages.batches.cancel") == []
    assert await world.orphans() == []
    assert await world.kept() == [shard["provider_batch_id"]]


async def test_creates_of_one_account_take_turns(
    world, claude, claude_lines, start, quiet, simulator, eventually
) -> None:
    slow, other = await world.account(KEY, "anthropic"), await world.account("sk-ant-other", "anthropic")
    held = await simulator.fault(CREATE, {"kind": "hold", "when": "after"}, key=KEY)
    first, second = await start(claude_lines(2), slow), await start(claude_lines(2), slow)
    third = await start(claude_lines(2), other)

    async with claude(FLOOPY_SUBMIT__CREATE_TIMEOUT="20", FLOOPY_SUBMIT__SETTLE_WINDOW="30"):
        await eventually(lambda: world.holding(held), "a create under way")
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
    world, claude, claude_lines, start, simulator, eventually
) -> None:
    await simulator.configure(max_batch_bytes=1_500)
    batch_id = await start(claude_lines(20))

    async with claude():
        await eventually(lambda: world.executed(20), "every line executed")
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


@pytest.mark.edge(7, 8)
@pytest.mark.parametrize("bad", [1, 10])
async def test_lines_that_cannot_be_translated_are_never_sent(
    world, claude, claude_lines, start, simulator, eventually, bad
) -> None:
    lines = claude_lines(10)
    for number in range(bad):
        line = json.loads(lines[number])
        line["body"]["n"] = 2
        lines[number] = json.dumps(line).encode()
    batch_id = await start(lines)

    async with claude():
        shards = await world.in_state(batch_id, *(("settled",) if bad == 10 else ("submitted", "settled")))

        async def the_others() -> bool:
            return len(await simulator.executions()) == 10 - bad

        await eventually(the_others, "the others executed")

    refused = next(shard for shard in shards if shard["kind"] == "refused")
    assert (refused["lines"], refused["ranges"]) == (bad, [[1, bad]])
    assert len(await simulator.calls(CREATE)) == (0 if bad == 10 else 1)


@pytest.fixture
def make_stricter(world: Any) -> Callable[..., Any]:
    """As if the submitter's translator had learnt since the plan that the model writes 50 tokens at most."""

    async def make_stricter(batch_id: str, version: int) -> None:
        plan = (await world.batch(batch_id))["plan"]
        pinned = json.loads(await world.blobs.read_bytes(plan["translation_blob"]))
        pinned["models"]["claude-haiku-4-5"]["capabilities"]["max_output"] = 50
        blob = await world.blobs.put("translation", json.dumps(pinned).encode(), [batch_id])
        newer = {"plan.translation_blob": blob.id, "plan.translator_version": version}
        await world.update("batches", batch_id, **newer)

    return make_stricter


@pytest.fixture
def limited(claude_lines: Any) -> Callable[..., list[bytes]]:
    """So many lines; those of the numbers ask for more tokens than the rest."""

    def limited(count: int, *more: int) -> list[bytes]:
        made = [json.loads(line) for line in claude_lines(count)]
        for number, line in enumerate(made, start=1):
            line["body"]["max_tokens"] = 60 if number in more else 40
        return [json.dumps(line, ensure_ascii=False).encode() for line in made]

    return limited


async def planned_for_another(
    world: Any, running: Any, start: Any, stricter: Any, lines: Any, version: int
) -> str:
    batch_id = str(await start(lines))
    async with running("planning"):
        await world.in_state(batch_id, "planned")
    await stricter(batch_id, version)
    return batch_id


@pytest.mark.parametrize("version", [TRANSLATOR_VERSION, TRANSLATOR_VERSION - 1])
@pytest.mark.parametrize("refused", [(2, 3, 7), (10,), (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)], ids=str)
async def test_lines_that_a_newer_translator_refuses_get_its_answer_and_the_others_are_sent_once(
    world, running, claude, start, limited, make_stricter, simulator, eventually, refused, version
) -> None:
    lines = limited(10, *refused)
    batch_id = await planned_for_another(world, running, start, make_stricter, lines, version)
    good = [number for number in range(1, 11) if number not in refused]

    async with claude():
        ends = ("submitted", "settled") if good else ("settled",)
        if good:
            await eventually(lambda: world.executed(len(good)), "the others executed")
        await eventually(lambda: has_answers(world, batch_id), "answers")
        shards = await world.in_state(batch_id, *ends)

    answered = next(shard for shard in shards if shard["kind"] == "refused")
    assert numbers_in(answered) == list(refused)
    assert (answered["provider"], answered["ended"], answered["lines"]) == (
        "floopy",
        "finished",
        len(refused),
    )
    assert answered["ended_at"] is not None
    errors = await errors_of(world, answered)
    assert list(errors) == list(refused)
    assert {(status, error["param"], error["code"]) for status, error in errors.values()} == {
        (400, "max_tokens", "invalid_value")
    }
    sent = [row["custom_id"].partition("-")[2] for row in await simulator.executions()]
    assert sorted(map(int, sent)) == good
    assert len(await simulator.batches()) == (1 if good else 0)
    await simulator.assert_nothing_twice()
    assert sorted(line for shard in shards for line in numbers_in(shard)) == list(range(1, 11))


def numbers_in(shard: dict[str, Any]) -> list[int]:
    return [line for first, last in shard["ranges"] for line in range(first, last + 1)]


async def has_answers(world: Any, batch_id: str) -> bool:
    return any(shard["archive"] for shard in await world.shards(batch_id))


async def errors_of(world: Any, shard: dict[str, Any]) -> dict[int, tuple[int | None, dict[str, Any]]]:
    """Statuses and errors of a shard's lines, read as the reconciler reads them."""
    archive = shard["archive"]
    stored = await world.blobs.read_bytes(archive["error"]["blob"])
    assert len(stored) == archive["error"]["length"]
    found = {}
    for row in unpack_result(await world.blobs.read_bytes(archive["index_blob"])):
        answer = RESULT_FORMATS[shard["provider"]].parse_result(stored[row.offset : row.offset + row.length])
        found[row.line_no] = (answer.status_code, json.loads(answer.body or b"")["error"])
    return found


@pytest.mark.parametrize(
    "step", ["submit.after_split_decided", "submit.after_split_stored", "submit.after_split"]
)
async def test_a_kill_while_refused_lines_are_taken_out_loses_and_doubles_none(
    world, running, start, limited, make_stricter, new_process, simulator, eventually, step
) -> None:
    version = TRANSLATOR_VERSION - 1
    batch_id = await planned_for_another(world, running, start, make_stricter, limited(6, 2, 5), version)
    process = new_process()
    await process.start(FLOOPY_FAIL_AT=step, **SKEW)
    assert await process.died() == -signal.SIGKILL

    await process.start(**SKEW)
    await eventually(lambda: has_answers(world, batch_id), "answers")
    shards = await world.in_state(batch_id, "submitted", "settled")

    await eventually(lambda: world.executed(4), "the others executed")
    assert sorted((numbers_in(shard), shard["state"]) for shard in shards) == [
        ([1, 3, 4, 6], "submitted"),
        ([2, 5], "settled"),
    ]
    assert len(await simulator.batches()) == 1


async def test_a_late_batch_is_an_orphan_once_its_results_prove_it_and_not_before(
    world, claude, claude_lines, start, quiet, simulator, eventually
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
        await eventually(swept_twice, "sweeps that see it")
        assert await world.orphans() == []
        assert await simulator.calls("messages.batches.cancel") == []
        await simulator.advance(late, "ended")
        (orphan,) = await eventually(world.settled_orphans, "the orphan noted")

    assert (orphan["provider_batch_id"], orphan["reason"]) == (late, "late")
    assert orphan["counts"]["completed"] == 3
