"""Results of a real HTTP provider, whatever happens to them: archived as they came, each line once."""

from datetime import UTC, datetime
from typing import Any

import pytest
from waiting import eventually

from floopy.simulation import OwnSimulator
from floopy_common.domain.index import FLAG_OK
from floopy_common.stores.polling import PollStore
from floopy_reconciler.core.look import Pace

from .collecting import PATIENCE, Bench, upstream_of


async def test_results_are_archived_and_indexed_by_line(
    bench: Bench, world: Any, collect: Any, body: Any
) -> None:
    planted = await world.submitted(
        [body("a"), body("b", sim="status=400"), body("c")], blank_first=2, shard_lines=2
    )

    first, second = await collect(planted)

    assert [(s["state"], s["ended"], s["lease"]["token"]) for s in (first, second)] == [
        ("settled", "finished", None)
    ] * 2
    entries = await bench.entries(first)
    assert {line: (entry.source, entry.flags) for line, entry in entries.items()} == {
        3: (0, FLAG_OK),
        4: (1, 0),
    }
    nonce = first["attempts"][0]["nonce"].encode()
    for line, entry in entries.items():
        assert b'"%b-%d"' % (nonce, line) in await bench.archived(first, entry)
    assert first["archive"]["lines"] == 2
    pins = await bench.mongo.collection("blobs").count({"pins": planted.id})
    assert pins == 2 + 3 + 2


@pytest.mark.parametrize("pace", [Pace(3_600, 3_600)])
async def test_ended_shards_wait_for_room_and_not_for_another_look(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator
) -> None:
    await sim.configure(auto=False)
    planted = await world.submitted([body(f"q{n}") for n in range(11)], shard_lines=1)
    for shard in await world.shards(planted):
        await sim.advance(shard["provider_batch_id"], "completed")
    assert bench.pools.small_downloads.free < 11

    shards = await collect(planted)

    assert [shard["ended"] for shard in shards] == ["finished"] * 11
    assert all(shard["archive"]["succeeded"] == 1 for shard in shards)


async def test_archive_is_what_the_provider_sent_byte_for_byte(
    bench: Bench, world: Any, collect: Any, body: Any
) -> None:
    planted = await world.submitted([body("a"), body("b"), body("c", sim="garbled")])
    (shard,) = await collect(planted)

    upstream = await world.sdk.batches.retrieve(shard["provider_batch_id"])
    sent = (await world.sdk.files.content(upstream.output_file_id)).content

    assert await world.blobs.read_bytes(shard["archive"]["output"]["blob"]) == sent
    assert shard["archive"]["output"]["length"] == len(sent)


@pytest.mark.parametrize(
    ("directive", "kind", "answered"),
    [
        ("duplicate", "duplicate", True),
        ("duplicate=other", "duplicate", True),
        ("unknown", "unknown", None),
        ("garbled", "malformed", False),
        ("both", "duplicate", True),
    ],
)
async def test_spoilt_results_are_counted_and_never_double_a_line(
    bench: Bench, world: Any, collect: Any, body: Any, directive: str, kind: str, answered: bool | None
) -> None:
    planted = await world.submitted([body("a"), body("b", sim=directive), body("c")])

    (shard,) = await collect(planted)

    assert shard["archive"]["quarantined"][kind] >= 1
    entries = await bench.entries(shard)
    assert {1, 3} <= set(entries)
    if answered is not None:
        assert (2 in entries) is answered


async def test_success_wins_over_a_failure_of_the_same_line(
    bench: Bench, world: Any, collect: Any, body: Any
) -> None:
    planted = await world.submitted([body("a", sim="both")])

    (shard,) = await collect(planted)

    assert (await bench.entries(shard))[1].flags == FLAG_OK


async def test_missing_line_is_accepted_after_a_few_downloads(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator
) -> None:
    planted = await world.submitted([body("a"), body("b", sim="missing")])

    (shard,) = await collect(planted)

    assert (shard["ended"], shard["downloads"]) == ("finished", PATIENCE)
    assert set(await bench.entries(shard)) == {1}
    assert len(await sim.calls("files.content")) == PATIENCE + 1


@pytest.mark.parametrize("mode", ["length", "chunked"])
async def test_results_cut_short_are_fetched_again(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator, mode: str
) -> None:
    await sim.fault("files.content", {"kind": "truncate", "bytes": 700, "mode": mode}, times=1)
    planted = await world.submitted([body("a"), body("b"), body("c")])

    (shard,) = await collect(planted)

    assert set(await bench.entries(shard)) == {1, 2, 3}


@pytest.mark.parametrize(
    "fault", [{"kind": "drop"}, {"kind": "status", "status": 500}, {"kind": "status", "status": 429}]
)
async def test_download_that_fails_is_tried_again(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator, fault: dict[str, Any]
) -> None:
    await sim.fault("files.content", fault, times=PATIENCE + 3)
    planted = await world.submitted([body("a")])

    (shard,) = await collect(planted)

    assert shard["ended"] == "finished"
    assert set(await bench.entries(shard)) == {1}


async def test_download_that_is_stopped_is_anybodys_at_once(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator
) -> None:
    held = await sim.fault("files.content", {"kind": "hold"}, times=1)
    planted = await world.submitted([body("a")])

    async def downloading() -> bool:
        await bench.poller.step()
        return bool((await sim.fault_state(held))["waiting"])

    await eventually(downloading, timeout=20, what="a download under way")
    await bench.pools.small_downloads.close()

    (shard,) = await world.shards(planted)
    assert (shard["state"], shard["lease"]["token"]) == ("downloading", None)
    (shard,) = await collect(planted)
    assert set(await bench.entries(shard)) == {1}


async def test_results_the_provider_no_longer_has_end_the_shard_as_lost(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator
) -> None:
    await sim.fault("files.content", {"kind": "status", "status": 404}, times=None)
    planted = await world.submitted([body("a")])

    (shard,) = await collect(planted)

    assert (shard["ended"], shard["archive"]) == ("lost", None)


async def test_one_file_gone_keeps_what_the_other_says(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator
) -> None:
    await sim.fault("files.content", {"kind": "status", "status": 404}, times=None, file="error")
    planted = await world.submitted([body("a"), body("b", sim="status=400")])

    (shard,) = await collect(planted)

    assert shard["ended"] == "lost"
    assert set(await bench.entries(shard)) == {1}


async def test_completed_without_files_waits_for_them(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator
) -> None:
    early = {"kind": "patch", "body": {"output_file_id": None, "status": "completed"}}
    await sim.configure(auto=False)
    planted = await world.submitted([body("a")])
    # what is shown after the early looks must not depend on how fast they were
    await sim.advance(await upstream_of(world, planted), "completed")
    await sim.fault("batches.get", early, times=2)

    (shard,) = await collect(planted)

    assert set(await bench.entries(shard)) == {1}
    assert shard["downloads"] >= 1


async def test_completed_without_files_for_ever_ends_with_missing_lines(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator
) -> None:
    never = {"kind": "patch", "body": {"output_file_id": None, "error_file_id": None}}
    await sim.fault("batches.get", never, times=None)
    planted = await world.submitted([body("a")])

    (shard,) = await collect(planted)

    assert (shard["ended"], shard["archive"], shard["downloads"]) == ("finished", None, PATIENCE)


async def test_results_that_kill_their_collectors_are_left_alone_and_others_are_collected(
    bench: Bench, world: Any, collect: Any, body: Any
) -> None:
    planted = await world.submitted([body("a"), body("b")], shard_lines=1)
    deadly = (await world.shards(planted))[0]["_id"]
    shards = bench.mongo.collection("shards")
    polls = PollStore(bench.mongo, "victim", 30)
    for deaths in range(3):
        async with polls.hold((await shards.find_one({"_id": deadly})) or {}) as hold:
            assert hold is not None
            assert hold.shard["lease"]["deaths"] == deaths
        # its holder is gone without a word
        await shards.update_one({"_id": deadly}, [{"$set": {"lease.expires_at": "$$NOW"}}])

    async def left_alone() -> bool:
        await bench.poller.step()
        first, second = await world.shards(planted)
        return bool(first["lease"]["token"] is None and second["state"] == "settled")

    await eventually(left_alone, timeout=20, what="the deadly one left alone, the other settled")
    (found,) = [shard for shard in await world.shards(planted) if shard["_id"] == deadly]
    assert (found["state"], found["lease"]["deaths"]) == ("downloading", 3)
    assert (found["poll"]["next_at"] - datetime.now(UTC)).total_seconds() > 10

    await shards.update_one({"_id": deadly}, [{"$set": {"poll.next_at": "$$NOW"}}])
    assert [shard["state"] for shard in await collect(planted)] == ["settled", "settled"]
