"""What becomes of a shard: settled, tried again, put back in line, refused; and what a batch shows of it."""

from datetime import UTC, datetime
from typing import Any

import pytest

from floopy.simulation import OwnSimulator
from floopy_common.domain.index import FLAG_OK, FLAG_RETRYABLE
from floopy_common.stores.summaries import SummaryStore

from .collecting import Bench


async def test_results_of_somebody_elses_batch_detach_the_shard(
    bench: Bench, world: Any, collect: Any, body: Any
) -> None:
    planted = await world.plan([body("a"), body("b")])
    (shard,) = planted.shards
    foreign = await world.submit(planted, shard, nonce="ffffffffff")

    (after,) = await collect(planted)

    assert (after["state"], after["foreign"], after["archive"]) == ("submit_unknown", [foreign], None)


async def test_lines_that_failed_in_passing_get_a_retry_shard(
    bench: Bench, world: Any, collect: Any, body: Any
) -> None:
    planted = await world.submitted(
        [body("a"), body("b", sim="status=500"), body("c", sim="status=400"), body("d", sim="status=429")],
        segment_lines=2,
    )

    parent, retry = await collect(planted)

    assert (parent["state"], retry["state"], retry["parent"]) == ("settled", "planned", parent["_id"])
    assert (retry["ranges"], retry["lines"], retry["segments"]) == ([[2, 2], [4, 4]], 2, [0, 1])
    flags = {line: entry.flags for line, entry in (await bench.entries(parent)).items()}
    assert flags == {1: FLAG_OK, 2: FLAG_RETRYABLE, 3: 0, 4: FLAG_RETRYABLE}


async def test_line_is_retried_up_to_the_depth(bench: Bench, world: Any, collect: Any, body: Any) -> None:
    planted = await world.submitted([body("a", sim="status=503")])

    for depth in range(1, 4):
        shards = await collect(planted)
        assert [s["depth"] for s in shards] == list(range(depth + 1))
        await world.submit(planted, shards[-1])
    shards = await collect(planted)

    assert [s["state"] for s in shards] == ["settled"] * 4


async def test_no_retry_while_the_batch_is_ending(bench: Bench, world: Any, collect: Any, body: Any) -> None:
    planted = await world.submitted([body("a", sim="status=500")], ending="expired")

    assert len(await collect(planted)) == 1


async def test_full_queue_puts_the_shard_back_in_line(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator
) -> None:
    await sim.configure(enqueued_token_limit=1)
    planted = await world.submitted([body("a")])

    (shard,) = await collect(planted)

    assert (shard["state"], shard["waiting"]["reason"]) == ("waiting", "provider_queue_full")
    assert (shard["provider_batch_id"], shard["queue_refusals"]) == (None, 1)


@pytest.mark.surface("4.4 model_not_found, in the provider's words")
async def test_refused_input_names_the_users_lines(bench: Bench, world: Any, collect: Any, body: Any) -> None:
    wrong = {**body("b"), "model": "no-such-model"}
    planted = await world.submitted([body("x")] * 3 + [body("a"), wrong], blank_first=4, shard_lines=3)

    _, second = await collect(planted)

    assert (second["state"], second["ended"]) == ("refused", "refused")
    assert {error["line"] for error in second["refused"]["errors"]} == {9}
    assert all(error["message"] for error in second["refused"]["errors"])


async def test_cancelled_upstream_keeps_what_was_finished_and_leaves_the_rest_to_our_reason(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator
) -> None:
    await sim.configure(auto=False)
    planted = await world.submitted([body(f"q{n}") for n in range(4)], ending="expired")
    (shard,) = planted.shards
    upstream = (await world.shards(planted))[0]["provider_batch_id"]
    await sim.advance(upstream, "in_progress", completed=2)
    await bench.mongo.collection("shards").update_one(
        {"_id": shard["_id"]}, {"$set": {"cancel_asked_at": datetime.now(UTC)}}
    )

    (after,) = await collect(planted)

    assert after["ended"] == "expired"
    entries = await bench.entries(after)
    assert len(entries) == 2
    assert {entry.flags for entry in entries.values()} == {FLAG_OK}
    assert len(await sim.calls("batches.cancel")) == 1


async def test_expired_upstream_ends_the_shard_as_expired(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator
) -> None:
    await sim.configure(auto=False)
    planted = await world.submitted([body("a"), body("b")])
    upstream = (await world.shards(planted))[0]["provider_batch_id"]
    await sim.advance(upstream, "expired", completed=1)

    (after,) = await collect(planted)

    assert after["ended"] == "expired"
    assert len(await bench.entries(after)) == 1


@pytest.mark.parametrize("status", [500, 404])
async def test_looks_that_fail_change_nothing_but_the_time_of_the_next(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator, status: int
) -> None:
    await sim.fault("batches.get", {"kind": "status", "status": status}, times=3)
    planted = await world.submitted([body("a")])

    (shard,) = await collect(planted)

    assert shard["ended"] == "finished"


async def test_status_that_goes_backwards_is_ignored(
    bench: Bench, world: Any, collect: Any, body: Any, sim: OwnSimulator
) -> None:
    await sim.fault("files.content", {"kind": "status", "status": 500}, times=1)
    back = {"kind": "patch", "body": {"status": "finalizing", "output_file_id": None}}
    planted = await world.submitted([body("a")])
    await sim.fault("batches.get", back, times=5, skip=1)

    (shard,) = await collect(planted)

    assert set(await bench.entries(shard)) == {1}


async def test_progress_is_what_results_show_once_they_are_here(
    bench: Bench, world: Any, collect: Any, body: Any
) -> None:
    planted = await world.submitted([body("a"), body("b", sim="missing"), body("c")])

    (after,) = await collect(planted)

    assert after["provider_counts"]["completed"] == 3
    summary = await SummaryStore(bench.mongo).compute(planted.id, planted.batch["plan"]["plan_id"], 3)
    assert summary["counts"]["completed"] == 2


@pytest.mark.parametrize(
    ("status", "claimed", "shown"), [("in_progress", 2, 2), ("in_progress", 500, 3), ("completed", 3, 0)]
)
async def test_progress_is_no_more_than_can_be_known(
    bench: Bench, world: Any, body: Any, status: str, claimed: int, shown: int
) -> None:
    planted = await world.plan([body(f"q{n}") for n in range(3)])
    counts = {"total": 3, "completed": claimed, "failed": 0}
    await bench.mongo.collection("shards").update_one(
        {}, {"$set": {"state": "submitted", "provider_status": status, "provider_counts": counts}}
    )

    summary = await SummaryStore(bench.mongo).compute(planted.id, planted.batch["plan"]["plan_id"], 3)

    assert summary["counts"]["completed"] == shown
