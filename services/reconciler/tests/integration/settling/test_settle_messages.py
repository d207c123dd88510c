"""Results of Anthropic's message batches: whatever becomes of the messages, each line is answered once."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from waiting import eventually

from floopy.simulation import OwnSimulator
from floopy_common.domain.index import FLAG_OK, FLAG_RETRYABLE, InputEntry
from floopy_common.stores.summaries import SummaryStore
from floopy_reconciler.core.sources import choose, sources_of

from .collecting import PATIENCE, Bench, upstream_of


def asked_of_claude(question: str, sim: str | None = None) -> dict[str, Any]:
    content = question if sim is None else f"{question} [sim:{sim}]"
    return {
        "model": "claude-haiku-4-5",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": content}],
    }


@pytest.mark.edge(14)
async def test_messages_in_any_order_are_indexed_by_their_lines(
    bench: Bench, claude_world: Any, collect: Any
) -> None:
    planted = await claude_world.submitted([asked_of_claude(f"q{n}") for n in range(1, 21)], blank_first=3)

    (shard,) = await collect(planted)

    entries = await bench.entries(shard)
    assert list(entries) == list(range(4, 24))
    offsets = [entry.offset for entry in entries.values()]
    assert offsets != sorted(offsets)  # they did not come in the order of their lines
    nonce = shard["attempts"][0]["nonce"].encode()
    for line_no, entry in entries.items():
        assert b'"%b-%d"' % (nonce, line_no) in await bench.archived(shard, entry)


@pytest.mark.edge(15)
async def test_messages_that_are_missing_doubled_or_unknown_spoil_no_other(
    bench: Bench, claude_world: Any, collect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    words = [None, "missing", "duplicate", "duplicate=other", "unknown", None]
    planted = await claude_world.submitted([asked_of_claude(f"q{n}", sim) for n, sim in enumerate(words)])

    (shard,) = await collect(planted)

    entries = await bench.entries(shard)
    assert set(entries) == {1, 3, 4, 5, 6}
    assert (shard["ended"], shard["downloads"]) == ("finished", PATIENCE)
    assert {entry.flags for entry in entries.values()} == {FLAG_OK}
    quarantined = shard["archive"]["quarantined"]
    assert (quarantined["duplicate"], quarantined["unknown"]) == (2, 1)
    alerts = [record for record in caplog.records if getattr(record, "event", "") == "answers_missing"]
    assert [(record.levelname, vars(record)["lines"]) for record in alerts] == [("ERROR", 1)]
    archive = await bench.world.blobs.read_bytes(shard["archive"]["output"]["blob"])
    nonce = shard["attempts"][0]["nonce"].encode()
    for line_no in (3, 4):  # of two answers to a line the first
        first = next(row for row in archive.split(b"\n") if b'"%b-%d"' % (nonce, line_no) in row)
        assert await bench.archived(shard, entries[line_no]) == first


@pytest.mark.edge(13)
async def test_progress_shows_a_message_batch_that_ended_while_another_runs(
    bench: Bench, claude_world: Any, sim: OwnSimulator
) -> None:
    await sim.configure(auto=False)
    planted = await claude_world.submitted([asked_of_claude(f"q{n}") for n in range(5)], shard_lines=3)
    first, second = [shard["provider_batch_id"] for shard in await claude_world.shards(planted)]
    await sim.advance(first, "ended")
    await sim.advance(second, "in_progress", completed=1)

    async def collected() -> bool:
        await bench.poller.step()
        shards = await claude_world.shards(planted)
        return [shard["state"] for shard in shards] == ["settled", "submitted"]

    await eventually(collected, timeout=20, what="the first collected")

    # what runs says nothing of its requests until it has ended
    summary = await SummaryStore(bench.mongo).compute(planted.id, planted.batch["plan"]["plan_id"], 5)
    assert summary["counts"] == {"completed": 3, "failed": 0}
    assert summary["shards"] == {"settled": 1, "submitted": 1}


@pytest.mark.edge(19)
async def test_an_overloaded_message_succeeds_the_second_time_and_is_answered_once(
    bench: Bench, claude_world: Any, collect: Any
) -> None:
    planted = await claude_world.submitted(
        [asked_of_claude("a"), asked_of_claude("b", "status=529 times=1"), asked_of_claude("c")]
    )

    parent, retry = await collect(planted)
    assert (retry["parent"], retry["ranges"], retry["kind"]) == (parent["_id"], [[2, 2]], "retry")
    await claude_world.submit(planted, retry)
    parent, retry = await collect(planted)

    flags = {line: entry.flags for line, entry in (await bench.entries(parent)).items()}
    assert flags == {1: FLAG_OK, 2: FLAG_RETRYABLE, 3: FLAG_OK}
    assert {line: entry.flags for line, entry in (await bench.entries(retry)).items()} == {2: FLAG_OK}
    sources = sources_of([parent, retry], 1, 3)
    answers = [await bench.entries(retry), await bench.entries(parent)]
    chosen = choose([InputEntry(n, 0, 1, 0) for n in (1, 2, 3)], sources, answers, lambda *_: False)
    assert [sources[choice.source]["shard"] for choice in chosen] == [
        parent["_id"],
        retry["_id"],
        parent["_id"],
    ]


@pytest.mark.edge(11)
@pytest.mark.parametrize("ending", ["cancelled", "expired"])
async def test_cancelled_message_batch_keeps_what_ran_and_leaves_the_rest_to_our_reason(
    bench: Bench, claude_world: Any, collect: Any, sim: OwnSimulator, ending: str
) -> None:
    await sim.configure(auto=False)
    planted = await claude_world.submitted([asked_of_claude(f"q{n}") for n in range(4)], ending=ending)
    await sim.advance(await upstream_of(claude_world, planted), "in_progress", completed=2)
    await bench.mongo.collection("shards").update_one({}, {"$set": {"cancel_asked_at": datetime.now(UTC)}})

    (after,) = await collect(planted)

    assert (after["state"], after["ended"]) == ("settled", ending)
    assert after["provider_status"] == "cancelled"
    assert {entry.flags for entry in (await bench.entries(after)).values()} == {FLAG_OK}
    assert after["archive"]["succeeded"] == 2
    assert len(await sim.calls("messages.batches.cancel")) == 1


async def test_message_batch_that_ran_out_of_its_own_time_is_tried_again(
    bench: Bench, claude_world: Any, collect: Any, sim: OwnSimulator
) -> None:
    await sim.configure(auto=False)
    planted = await claude_world.submitted([asked_of_claude(f"q{n}") for n in range(4)])
    await sim.advance(await upstream_of(claude_world, planted), "expired", completed=1)

    first, retry = await collect(planted)

    assert (first["state"], first["ended"], first["archive"]["succeeded"]) == ("settled", "finished", 1)
    assert (retry["kind"], retry["lines"], retry["state"]) == ("retry", 3, "planned")
    await claude_world.submit(planted, retry)
    await sim.advance(await upstream_of(claude_world, planted), "ended")
    _, retry = await collect(planted)
    assert (retry["ended"], retry["archive"]["succeeded"]) == ("finished", 3)


async def test_message_batch_that_ran_out_of_the_batchs_time_as_well_expires(
    bench: Bench, claude_world: Any, collect: Any, sim: OwnSimulator
) -> None:
    await sim.configure(auto=False)
    soon = datetime.now(UTC) + timedelta(seconds=30)
    planted = await claude_world.submitted([asked_of_claude(f"q{n}") for n in range(3)], expires_at=soon)
    await sim.advance(await upstream_of(claude_world, planted), "expired", completed=1)

    (after,) = await collect(planted)

    assert (after["ended"], after["archive"]["succeeded"]) == ("expired", 1)


@pytest.mark.parametrize("sim_words", ["status=529", "status=500", "status=429"])
async def test_message_that_failed_in_passing_is_tried_three_times_more(
    bench: Bench, claude_world: Any, collect: Any, sim_words: str
) -> None:
    planted = await claude_world.submitted([asked_of_claude("a", sim_words), asked_of_claude("b")])

    for depth in range(1, 4):
        shards = await collect(planted)
        assert [(s["depth"], s["lines"]) for s in shards] == [(0, 2), *((n, 1) for n in range(1, depth + 1))]
        await claude_world.submit(planted, shards[-1])
    shards = await collect(planted)

    assert [s["ended"] for s in shards] == ["finished"] * 4


async def test_message_that_was_refused_is_not_tried_again(
    bench: Bench, claude_world: Any, collect: Any
) -> None:
    planted = await claude_world.submitted([asked_of_claude("a", "status=400")])

    (after,) = await collect(planted)

    assert after["provider_counts"] == {"total": 1, "completed": 0, "failed": 1}
