"""Lines that Anthropic's translator refuses, at the plan or since: answered, taken out, never sent."""

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest
from floopy_batches.claude import CREATE, SKEW
from waiting import eventually

from floopy_common.domain.index import unpack_result
from floopy_common.providers.anthropic.request import TRANSLATOR_VERSION
from floopy_common.providers.formats import RESULT_FORMATS


@pytest.mark.edge(7, 8)
@pytest.mark.parametrize("bad", [1, 10])
async def test_lines_that_cannot_be_translated_are_never_sent(
    world, claude, claude_lines, start, simulator, bad
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

        await eventually(the_others, what="the others executed")

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
    world, running, claude, start, limited, make_stricter, simulator, refused, version
) -> None:
    lines = limited(10, *refused)
    batch_id = await planned_for_another(world, running, start, make_stricter, lines, version)
    good = [number for number in range(1, 11) if number not in refused]

    async with claude():
        ends = ("submitted", "settled") if good else ("settled",)
        if good:
            await eventually(lambda: world.executed(len(good)), what="the others executed")
        await eventually(lambda: has_answers(world, batch_id), what="answers")
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
    world, running, start, limited, make_stricter, new_process, simulator, step
) -> None:
    version = TRANSLATOR_VERSION - 1
    batch_id = await planned_for_another(world, running, start, make_stricter, limited(6, 2, 5), version)
    process = new_process()
    await process.start(FLOOPY_FAIL_AT=step, **SKEW)
    assert await process.died() == -signal.SIGKILL

    await process.start(**SKEW)
    await eventually(lambda: has_answers(world, batch_id), what="answers")
    shards = await world.in_state(batch_id, "submitted", "settled")

    await eventually(lambda: world.executed(4), what="the others executed")
    assert sorted((numbers_in(shard), shard["state"]) for shard in shards) == [
        ([1, 3, 4, 6], "submitted"),
        ([2, 5], "settled"),
    ]
    assert len(await simulator.batches()) == 1
