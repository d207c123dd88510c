"""A batch's turns against a real replica set: nothing written too early, nothing ended twice."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from floopy_common.chassis.mongo import Mongo
from floopy_common.domain.ids import output_file_id
from floopy_common.stores.ending import EndingStore
from floopy_common.stores.finishing import TurnStore

from .winding_up import Bench


@pytest.fixture
def bench(mongo: Mongo, world: Any) -> Bench:
    return Bench(mongo, world)


async def test_segment_is_offered_once_no_shard_owes_it_a_line(
    bench: Bench, world: Any, bodies: list[Any]
) -> None:
    planted = await world.plan(bodies, segment_lines=2, shard_lines=3)

    await bench.turn(planted)
    assert await bench.ready(planted) == []

    await bench.settle(planted.shards[0])
    await bench.turn(planted)
    assert await bench.ready(planted) == [0]
    assert bench.offered.take(9, small=True) == [(planted.id, planted.segments[0]["_id"])]
    assert bench.woken == ["segments"]

    await bench.settle(planted.shards[1])
    await bench.turn(planted)
    assert await bench.ready(planted) == [0, 1, 2]
    assert [name for _, name in bench.offered.take(9, small=True)] == [
        segment["_id"] for segment in planted.segments[1:]
    ], "what was offered before is not offered again"


async def test_retry_shard_keeps_its_segments_back(bench: Bench, world: Any, bodies: list[Any]) -> None:
    from floopy_reconciler.core.retry import retry_shard

    planted = await world.plan(bodies, segment_lines=2, shard_lines=6)
    (parent,) = planted.shards
    retry = retry_shard(parent, [3], [1, 2, 3, 4, 5, 6], [(1, 0), (3, 1), (5, 2)])
    await bench.mongo.collection("shards").insert_new(retry)
    await bench.settle(parent)

    batch = await bench.turn(planted)

    assert await bench.ready(planted) == [0, 2]
    assert batch["status"] == "in_progress"


async def test_batch_ends_when_every_segment_is_written(bench: Bench, world: Any, bodies: list[Any]) -> None:
    planted = await world.plan(bodies, segment_lines=2, shard_lines=3)
    for shard in planted.shards:
        await bench.settle(shard)

    batch = await bench.turn(planted)
    assert batch["status"] == "finalizing"
    await bench.write(planted)
    batch = await bench.turn(planted)

    assert batch["status"] == "completed"
    assert batch["counts"] == {"total": 6, "completed": 3, "failed": 3}
    assert batch["usage"]["total_tokens"] == 15
    assert batch["output_file_id"] == output_file_id(planted.id, "output")
    assert batch["completed_at"] is not None
    assert [event["topic"] for event in batch["outbox"]] == ["batch.completed"]
    output = await bench.files.get_owned(world.org_id, batch["output_file_id"])
    assert output is not None
    content = [await world.blobs.read_bytes(part["blob"]) for part in output["ranges"]]
    assert content == [b"output of 0\n", b"output of 1\n", b"output of 2\n"]
    hashes = "".join(hashlib.sha256(part).hexdigest() for part in content)
    assert output["etag"] == hashlib.sha256(hashes.encode()).hexdigest()


async def test_finalising_again_after_the_files_makes_no_third_file(
    bench: Bench, world: Any, bodies: list[Any]
) -> None:
    """A kill between the files and the transition leaves exactly this."""
    planted = await world.plan(bodies)
    await bench.settle(planted.shards[0])
    await bench.turn(planted)
    await bench.write(planted)
    await bench.turn(planted)
    before = await bench.mongo.collection("files").find_all({"batch_id": planted.id})
    await bench.mongo.collection("batches").update_one(
        {"_id": planted.id}, {"$set": {"status": "finalizing", "completed_at": None}}
    )

    batch = await bench.turn(planted)

    assert batch["status"] == "completed"
    assert await bench.mongo.collection("files").find_all({"batch_id": planted.id}) == before
    assert len(before) == 2


async def test_transition_that_lost_a_race_is_decided_anew(
    bench: Bench, world: Any, bodies: list[Any]
) -> None:
    """The user cancels between the reading of the batch and its last transition."""
    planted = await world.plan(bodies)
    await bench.settle(planted.shards[0])
    await bench.turn(planted)
    await bench.write(planted)
    stored = bench.files.insert_output

    async def cancel_meanwhile(file: dict[str, Any]) -> bool:
        if file["kind"] == "output":
            await bench.cancel(planted)
        return await stored(file)

    bench.files.insert_output = cancel_meanwhile  # type: ignore[method-assign]
    batch = await bench.turn(planted)
    assert batch["status"] == "cancelling"

    bench.files.insert_output = stored  # type: ignore[method-assign]
    assert (await bench.turn(planted))["status"] == "cancelled"


async def test_turn_that_failed_is_asked_for_again(bench: Bench, world: Any, bodies: list[Any]) -> None:
    planted = await world.plan(bodies)
    await bench.settle(planted.shards[0])
    await bench.turn(planted)
    await bench.write(planted)
    stored = bench.files.insert_output

    async def fail(_: dict[str, Any]) -> bool:
        raise OSError("no database")

    bench.files.insert_output = fail  # type: ignore[method-assign]
    bench.agenda.ask(planted.id)
    with pytest.raises(OSError, match="no database"):
        await bench.wind_up.step()

    bench.files.insert_output = stored  # type: ignore[method-assign]
    await bench.mongo.collection("batches").update_one(
        {"_id": planted.id}, {"$set": {"next_look_at": datetime.now(UTC) + timedelta(hours=1)}}
    )
    assert (await bench.turn(planted))["status"] == "completed"


async def test_a_batch_whose_turn_fails_keeps_no_due_one_from_its_own(
    bench: Bench, world: Any, bodies: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, due = [await world.plan(bodies, segment_lines=6, shard_lines=6) for _ in range(2)]
    await bench.settle(due.shards[0])
    all_of = EndingStore.all_of

    async def failing(self: EndingStore, batch_id: str, plan_id: str) -> list[dict[str, Any]]:
        if batch_id == broken.id:
            raise RuntimeError("always")
        return await all_of(self, batch_id, plan_id)

    monkeypatch.setattr(EndingStore, "all_of", failing)
    await bench.mongo.collection("batches").update_one(
        {"_id": due.id}, {"$set": {"next_look_at": datetime.now(UTC) + timedelta(hours=1)}}
    )
    for _ in range(2):
        with pytest.raises(RuntimeError):
            await bench.wind_up.step()
    await TurnStore(bench.mongo).nudge(due.id)

    with pytest.raises(RuntimeError):
        await bench.wind_up.step()

    assert await bench.ready(due) == [0]
