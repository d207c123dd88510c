"""A batch's turns against a real replica set: nothing written too early, nothing ended twice."""

import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from floopy_common.chassis.mongo import Mongo
from floopy_common.domain.ids import output_file_id
from floopy_common.stores.batches import BatchStore
from floopy_common.stores.ending import EndingStore
from floopy_common.stores.files import FileStore
from floopy_common.stores.finishing import SegmentProgressStore, TurnStore
from floopy_common.stores.summaries import SummaryStore
from floopy_reconciler.core.agenda import Agenda
from floopy_reconciler.core.finalise import Finaliser
from floopy_reconciler.core.ready import ReadySegments
from floopy_reconciler.core.wind_up import Graces, Rhythm, Wakers, WindUp
from floopy_reconciler.metrics import PrometheusReports


class Clock:
    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


class Bench:
    """Turns of one batch, one at a time."""

    def __init__(self, mongo: Mongo, world: Any) -> None:
        self.mongo = mongo
        self.world = world
        self.clock = Clock()
        self.woken: list[str] = []
        segments, summaries, turns = SegmentProgressStore(mongo), SummaryStore(mongo), TurnStore(mongo)
        self.files = FileStore(mongo)
        self.batches = BatchStore(mongo)
        self.agenda = agenda = Agenda()
        self.offered = ReadySegments()
        self.wind_up = WindUp(
            agenda=agenda,
            turns=turns,
            shards=EndingStore(mongo),
            segments=segments,
            ready=self.offered,
            summaries=summaries,
            finaliser=Finaliser(
                batches=self.batches,
                agenda=agenda,
                segments=segments,
                files=self.files,
                reports=PrometheusReports(),
                relay=lambda: self.woken.append("outbox"),
                now=self.clock.now,
                hit=lambda _: None,
            ),
            graces=Graces(cancelled=60, expired=600),
            rhythm=Rhythm(0.0, 0.0),
            wakers=Wakers(lambda: self.woken.append("looks"), lambda: self.woken.append("segments")),
            now=self.clock.now,
            monotonic=time.monotonic,
        )

    async def turn(self, planted: Any) -> dict[str, Any]:
        """One turn of the only batch; the batch afterwards."""
        assert await self.wind_up.step()
        batch: dict[str, Any] = await self.world.batch(planted)
        return batch

    async def move(self, shard: dict[str, Any], **fields: Any) -> None:
        await self.mongo.collection("shards").update_one({"_id": shard["_id"]}, {"$set": fields})

    async def settle(self, shard: dict[str, Any], ended: str = "finished") -> None:
        await self.move(shard, state="settled", ended=ended, ended_at=datetime.now(UTC))

    async def refuse(self, shard: dict[str, Any], line: int | None = None) -> None:
        error = {"code": "model_not_found", "line": line, "message": "No.", "param": None}
        await self.move(
            shard, state="refused", ended="refused", refused={"code": "x", "message": "y", "errors": [error]}
        )

    async def ready(self, planted: Any) -> list[int]:
        rows = await self.mongo.collection("segments").find_all(
            {"batch_id": planted.id, "ready": True}, sort=[("no", 1)]
        )
        return [row["no"] for row in rows]

    async def write(self, planted: Any) -> None:
        """What the segment writer leaves of every ready segment: one output line, the rest errors."""
        for segment in planted.segments:
            parts: dict[str, Any] = {}
            for kind in ("output", "error"):
                text = f"{kind} of {segment['no']}\n".encode()
                blob = await self.world.blobs.put(kind, text, [planted.id])
                parts[kind] = {"blob": blob.id, "length": blob.length, "sha256": blob.sha256, "lines": 1}
            await self.mongo.collection("segments").update_one(
                {"_id": segment["_id"], "ready": True},
                {
                    "$set": {
                        "state": "written",
                        "manifest": parts,
                        "counts": {"completed": 1, "failed": segment["lines"] - 1},
                        "usage": {"input_tokens": 2, "output_tokens": 3, "total_tokens": 5},
                    }
                },
            )

    async def cancel(self, planted: Any) -> None:
        """As the api does."""
        from floopy_common.domain.batch import BatchStatus

        now = datetime.now(UTC)
        fields = {"ending": "cancelled", "ending_at": now, "next_look_at": now}
        batch = await self.world.batch(planted)
        moved = await self.batches.transition(
            batch, BatchStatus.CANCELLING, now=now, by="floopy-api", fields=fields
        )
        assert moved is not None


@pytest.fixture
def bench(mongo: Mongo, world: Any) -> Bench:
    return Bench(mongo, world)


@pytest.fixture
def bodies(body: Callable[..., Any]) -> list[dict[str, Any]]:
    return [body(f"q{number}") for number in range(6)]


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


async def test_expired_batch_settles_what_nobody_submitted_and_cancels_the_rest(
    bench: Bench, world: Any, bodies: list[Any]
) -> None:
    planted = await world.plan(bodies, shard_lines=2)
    finished, submitted, _ = planted.shards
    await bench.settle(finished)
    await bench.move(
        submitted, state="submitted", provider_batch_id="up", poll={"next_at": datetime.now(UTC)}
    )
    bench.clock.ahead = timedelta(days=1, seconds=1)

    batch = await bench.turn(planted)

    assert batch["status"] == "in_progress"
    assert batch["ending"] == "expired"
    shards = await world.shards(planted)
    assert [(shard["state"], shard["ended"]) for shard in shards] == [
        ("settled", "finished"),
        ("submitted", None),
        ("settled", "expired"),
    ]
    assert shards[1]["cancel_asked_at"] is not None
    assert "looks" in bench.woken


async def test_grace_of_an_expired_batch_ends(bench: Bench, world: Any, bodies: list[Any]) -> None:
    planted = await world.plan(bodies, shard_lines=3)
    for shard in planted.shards:
        await bench.move(shard, state="submitted", provider_batch_id=shard["_id"], poll={})
    await bench.move(planted.shards[1], provider_lost_at=datetime.now(UTC))
    bench.clock.ahead = timedelta(days=1, seconds=1)
    await bench.turn(planted)
    assert {shard["state"] for shard in await world.shards(planted)} == {"submitted"}

    bench.clock.ahead += timedelta(seconds=600)
    await bench.turn(planted)
    await bench.turn(planted)
    await bench.write(planted)
    batch = await bench.turn(planted)

    assert [shard["ended"] for shard in await world.shards(planted)] == ["expired", "lost"]
    assert batch["status"] == "expired"
    assert [event["topic"] for event in batch["outbox"]] == ["batch.expired"]


async def test_grace_ends_nothing_whose_results_only_wait_for_room(
    bench: Bench, world: Any, bodies: list[Any]
) -> None:
    planted = await world.plan(bodies, shard_lines=1)
    known = {"provider_batch_id": "up", "provider_status": "completed"}
    waits, fails, failed = planted.shards[:3]
    for shard in planted.shards:
        await bench.move(shard, state="cancelling", provider_batch_id="up", poll={"failures": 0})
    await bench.move(waits, state="submitted", **known)
    await bench.move(fails, state="submitted", **known, poll={"failures": 1})
    await bench.move(failed, state="downloading", **known, lease={"expires_at": datetime.now(UTC)})
    bench.clock.ahead = timedelta(days=1, seconds=1)
    await bench.turn(planted)

    bench.clock.ahead += timedelta(seconds=600)
    await bench.turn(planted)

    after = {shard["_id"]: shard["state"] for shard in await world.shards(planted)}
    assert after.pop(waits["_id"]) == "submitted"
    assert set(after.values()) == {"settled"}


async def test_batch_does_not_expire_once_every_shard_has_ended(
    bench: Bench, world: Any, bodies: list[Any]
) -> None:
    planted = await world.plan(bodies)
    await bench.settle(planted.shards[0])
    bench.clock.ahead = timedelta(days=2)

    await bench.turn(planted)
    await bench.write(planted)
    batch = await bench.turn(planted)

    assert (batch["status"], batch["ending"]) == ("completed", None)


async def test_cancelled_batch_keeps_what_was_finished(bench: Bench, world: Any, bodies: list[Any]) -> None:
    planted = await world.plan(bodies, shard_lines=3)
    await bench.settle(planted.shards[0])
    await bench.cancel(planted)

    await bench.turn(planted)
    await bench.turn(planted)
    await bench.write(planted)
    batch = await bench.turn(planted)

    assert batch["status"] == "cancelled"
    assert [shard["ended"] for shard in await world.shards(planted)] == ["finished", "cancelled"]
    assert batch["counts"]["total"] == 6
    assert batch["finalizing_at"] is None


async def test_cancelled_before_it_was_planned(bench: Bench, world: Any, bodies: list[Any]) -> None:
    planted = await world.plan(
        bodies, plan=None, status="validating", counts={"total": 0, "completed": 0, "failed": 0}
    )
    await bench.cancel(planted)

    batch = await bench.turn(planted)

    assert batch["status"] == "cancelled"
    assert batch["counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert (batch["audit"]["stage"], batch["audit"]["balanced"]) == ("closed", True)


async def test_every_shard_refused_fails_the_batch_and_no_segment_is_ever_offered(
    bench: Bench, world: Any, bodies: list[Any]
) -> None:
    planted = await world.plan(bodies, segment_lines=3, shard_lines=3)
    await bench.refuse(planted.shards[0], line=3)
    await bench.turn(planted)
    assert await bench.ready(planted) == []

    await bench.refuse(planted.shards[1], line=2)
    batch = await bench.turn(planted)

    assert batch["status"] == "failed"
    assert [error["line"] for error in batch["errors"]] == [2, 3]
    assert batch["counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert (batch["audit"]["stage"], batch["audit"]["balanced"]) == ("closed", True)
    assert await bench.ready(planted) == []
    assert [event["topic"] for event in batch["outbox"]] == ["batch.failed"]


async def test_one_shard_refused_leaves_its_lines_to_the_error_file(
    bench: Bench, world: Any, bodies: list[Any]
) -> None:
    planted = await world.plan(bodies, segment_lines=3, shard_lines=3)
    await bench.refuse(planted.shards[0])
    await bench.settle(planted.shards[1])

    await bench.turn(planted)
    assert await bench.ready(planted) == [0, 1]
    await bench.write(planted)

    assert (await bench.turn(planted))["status"] == "completed"


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
