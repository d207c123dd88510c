"""What goes after a batch has ended, and what never goes too early."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from floopy_common.chassis.mongo import Mongo
from floopy_common.domain.ids import line_id, new_batch_id
from floopy_common.providers.port import ProviderError
from floopy_common.stores.blobs import BlobStore
from floopy_common.stores.ending import EndingStore
from floopy_common.stores.sweeping import BlobSweeper, EndedStore
from floopy_reconciler.core.cleanup import Cleanup, CleanupTimes
from floopy_reconciler.core.sweep import Sweeper, SweepTimes
from floopy_reconciler.metrics import PrometheusReports


class Clock:
    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def monotonic(self) -> float:
        return time.monotonic()


class NoProviders:
    """No account is left: nothing uploaded can be deleted."""

    async def for_account(self, account_id: str) -> Any:
        from floopy_common.providers.port import AccountMissing

        raise AccountMissing(account_id)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def blobs(mongo: Mongo) -> BlobStore:
    return BlobStore(mongo)


@pytest.fixture
def ended(mongo: Mongo, blobs: BlobStore, clock: Clock) -> EndedStore:
    return EndedStore(mongo, blobs, clock)


@pytest.fixture
def cleanup(mongo: Mongo, ended: EndedStore, clock: Clock) -> Cleanup:
    return Cleanup(
        ended=ended,
        shards=EndingStore(mongo),
        providers=NoProviders(),
        times=CleanupTimes(retention=1000, patience=60, interval=5),
        now=clock.now,
    )


@pytest.fixture
async def planted(world: Any, mongo: Mongo, body: Callable[..., Any]) -> Any:
    """A completed batch with a row in every collection."""
    now = datetime.now(UTC)
    made = await world.plan([body("q")], status="completed", completed_at=now)
    for name in ("requests", "scores", "judgements", "usage_ledger"):
        await mongo.collection(name).insert_many(
            [{"_id": line_id(made.id, 1)}, {"_id": line_id(new_batch_id(), 1)}]
        )
    part = await world.blobs.put("output", b"line\n", [made.id])
    await mongo.collection("files").insert_new(
        {
            "_id": "file-out",
            "org_id": world.org_id,
            "batch_id": made.id,
            "deleted_at": None,
            "expires_at": None,
            "ranges": [{"blob": part.id, "offset": 0, "length": part.length}],
        }
    )
    return made


async def pinned(mongo: Mongo, planted: Any) -> int:
    return await mongo.collection("blobs").count({"pins": planted.id})


async def rest(cleanup: Cleanup, ended: EndedStore) -> int:
    """Steps until nothing is due."""
    steps = 0
    while await ended.due(1):
        await cleanup.step()
        steps += 1
    return steps


async def close_audit(mongo: Mongo, planted: Any) -> None:
    await mongo.collection("batches").update_one({"_id": planted.id}, {"$set": {"audit.stage": "closed"}})


async def test_content_goes_after_retention_once_the_audit_is_closed(
    cleanup: Cleanup, ended: EndedStore, mongo: Mongo, planted: Any, clock: Clock
) -> None:
    await close_audit(mongo, planted)
    assert await rest(cleanup, ended) == 1
    assert await pinned(mongo, planted) == 3

    clock.ahead = timedelta(seconds=1001)
    await rest(cleanup, ended)

    assert await pinned(mongo, planted) == 0
    kept = {
        name: await mongo.collection(name).count({})
        for name in ("requests", "scores", "judgements", "usage_ledger")
    }
    assert kept == {"requests": 1, "scores": 1, "judgements": 1, "usage_ledger": 2}
    file = await mongo.collection("files").find_one({"_id": "file-out"})
    assert file is not None
    assert file["deleted_at"] is not None


async def test_content_stays_while_the_audit_is_open(
    cleanup: Cleanup, ended: EndedStore, mongo: Mongo, planted: Any, clock: Clock
) -> None:
    await rest(cleanup, ended)
    clock.ahead = timedelta(seconds=5000)
    await rest(cleanup, ended)
    assert await pinned(mongo, planted) == 3

    await close_audit(mongo, planted)
    clock.ahead += timedelta(seconds=6)
    await rest(cleanup, ended)

    assert await pinned(mongo, planted) == 0


async def test_finished_cleanup_is_never_due_again(
    cleanup: Cleanup, ended: EndedStore, mongo: Mongo, planted: Any, clock: Clock
) -> None:
    await close_audit(mongo, planted)
    clock.ahead = timedelta(seconds=1001)
    assert await rest(cleanup, ended) == 2

    clock.ahead = timedelta(days=4000)

    assert await rest(cleanup, ended) == 0


async def test_batch_under_way_is_left_alone(
    cleanup: Cleanup, world: Any, clock: Clock, body: Callable[..., Any]
) -> None:
    await world.plan([body("q")])
    clock.ahead = timedelta(days=4000)

    assert not await cleanup.step()


async def test_batch_refused_before_it_was_planned_is_cleaned_too(
    cleanup: Cleanup, ended: EndedStore, mongo: Mongo, world: Any, clock: Clock, body: Callable[..., Any]
) -> None:
    audit = {"stage": "closed"}
    made = await world.plan([body("q")], plan=None, status="failed", failed_at=datetime.now(UTC), audit=audit)
    await rest(cleanup, ended)
    clock.ahead = timedelta(seconds=1001)
    await rest(cleanup, ended)

    assert await pinned(mongo, made) == 0


async def test_input_that_cannot_be_deleted_is_tried_for_a_while(
    cleanup: Cleanup, ended: EndedStore, mongo: Mongo, planted: Any, clock: Clock
) -> None:
    await mongo.collection("shards").update_one(
        {"batch_id": planted.id}, {"$set": {"state": "settled", "attempts": [{"input_file_id": "file-up"}]}}
    )
    await rest(cleanup, ended)
    batch = await mongo.collection("batches").find_one({"_id": planted.id})
    assert batch is not None
    assert "stage" not in batch["cleanup"]

    clock.ahead = timedelta(seconds=61)
    await rest(cleanup, ended)

    batch = await mongo.collection("batches").find_one({"_id": planted.id})
    assert batch is not None
    assert batch["cleanup"]["stage"] == "content"


class Provider:
    """Deletes every input but those of one name; one name it cannot even be asked about."""

    def __init__(self) -> None:
        self.deleted: list[str] = []

    async def for_account(self, account_id: str) -> "Provider":
        return self

    async def delete_input(self, file_id: str) -> None:
        if file_id == "file-kept":
            raise ProviderError("try later")
        if file_id == "file-odd":
            raise RuntimeError("a fault of ours")
        self.deleted.append(file_id)


@pytest.fixture
def provider(cleanup: Cleanup) -> Provider:
    cleanup._providers = provider = Provider()  # type: ignore[assignment]
    return provider


@pytest.fixture
def uploaded(world: Any, mongo: Mongo, body: Callable[..., Any]) -> Callable[..., Any]:
    """Plants an ended batch that has uploaded `file`, whose shard is in `state`."""

    async def plant(file: str, state: str = "settled") -> str:
        made = await world.plan([body("q")], status="completed", completed_at=datetime.now(UTC))
        attempts = [{"input_file_id": None}, {"input_file_id": file}]
        await mongo.collection("shards").update_one(
            {"batch_id": made.id}, {"$set": {"state": state, "attempts": attempts}}
        )
        return str(made.id)

    return plant


async def stages(mongo: Mongo, batch_ids: list[str]) -> list[str | None]:
    found = [await mongo.collection("batches").find_one({"_id": batch_id}) for batch_id in batch_ids]
    return [(batch or {}).get("cleanup", {}).get("stage") for batch in found]


async def test_inputs_of_many_batches_go_in_one_turn_each_once(
    cleanup: Cleanup, ended: EndedStore, mongo: Mongo, provider: Provider, uploaded: Callable[..., Any]
) -> None:
    batches = [await uploaded(f"file-{number}") for number in range(20)]

    assert await rest(cleanup, ended) == 1

    assert sorted(provider.deleted) == sorted(f"file-{number}" for number in range(20))
    assert await stages(mongo, batches) == ["content"] * 20


@pytest.mark.parametrize("stubborn", ["file-kept", "file-odd"])
async def test_an_input_that_stays_keeps_no_other_batch_from_its_rest(
    cleanup: Cleanup,
    ended: EndedStore,
    mongo: Mongo,
    provider: Provider,
    uploaded: Callable[..., Any],
    stubborn: str,
) -> None:
    batches = [await uploaded("file-1"), await uploaded(stubborn), await uploaded("file-2")]

    with nullcontext() if stubborn == "file-kept" else pytest.raises(RuntimeError):
        await cleanup.step()

    assert sorted(provider.deleted) == ["file-1", "file-2"]
    assert await stages(mongo, batches) == ["content", None, "content"]
    assert await ended.due(10) == []


async def test_a_shard_nobody_has_submitted_when_its_batch_ends_is_ended_and_its_input_goes(
    cleanup: Cleanup, mongo: Mongo, provider: Provider, uploaded: Callable[..., Any]
) -> None:
    batches = [
        await uploaded("file-late", "waiting"),
        await uploaded("file-2"),
        await uploaded("x", "planned"),
    ]

    await cleanup.step()

    shards = [await mongo.collection("shards").find_one({"batch_id": batch}) for batch in batches]
    assert [shard and (shard["state"], shard["ended"]) for shard in shards] == [
        ("settled", "cancelled"),
        ("settled", None),
        ("settled", "cancelled"),
    ]
    assert sorted(provider.deleted) == ["file-2", "file-late", "x"]
    assert await stages(mongo, batches) == ["content"] * 3


async def test_an_input_some_shard_may_still_need_stays(
    cleanup: Cleanup, mongo: Mongo, provider: Provider, uploaded: Callable[..., Any]
) -> None:
    await uploaded("file-1", "submitted")

    await cleanup.step()

    assert provider.deleted == []


async def test_batches_another_worker_has_taken_are_left_to_it(
    ended: EndedStore, uploaded: Callable[..., Any]
) -> None:
    await uploaded("file-1")
    found = await ended.due(10)

    assert await ended.take(found, 60)
    assert not await ended.take(found, 60)
    assert await ended.due(10) == []


async def test_ended_batches_are_found_by_index(mongo: Mongo, ended: EndedStore) -> None:
    resting = {"status": "completed", "cleanup": {"next_at": datetime(9999, 1, 1, tzinfo=UTC)}}
    await mongo.collection("batches").insert_many([{"_id": new_batch_id(), **resting} for _ in range(200)])
    criteria = {
        "status": {"$in": ["cancelled", "completed", "expired", "failed"]},
        "$expr": {"$lte": ["$cleanup.next_at", datetime.now(UTC)]},
    }
    found = mongo.collection("batches")._raw.find(criteria).sort("cleanup.next_at", 1).limit(32)
    explained = await found.explain()

    assert await ended.due(32) == []
    assert "status_cleanup_next_at" in str(explained["queryPlanner"]["winningPlan"])
    assert explained["executionStats"]["totalDocsExamined"] == 0


async def test_unpinned_blobs_are_swept_and_pinned_ones_stay(
    mongo: Mongo, blobs: BlobStore, planted: Any
) -> None:
    loose = await blobs.put("input", b"nobody's")
    sweeper = Sweeper(
        sweeps=BlobSweeper(mongo), times=SweepTimes(age=0, grace=0), reports=PrometheusReports()
    )

    while await sweeper.step():
        pass

    assert await blobs.stat(loose.id) is None
    assert await pinned(mongo, planted) == 3


async def test_pin_of_a_batch_that_never_came_to_be_goes(
    mongo: Mongo, blobs: BlobStore, planted: Any, clock: Clock
) -> None:
    leaked = new_batch_id()
    blob = await blobs.put("input", b"x", [leaked, planted.id])
    sweeper = BlobSweeper(mongo, clock)

    assert await sweeper.remove_leaked_pins(100) == (0, "")
    clock.ahead = timedelta(seconds=50)
    assert await sweeper.remove_leaked_pins(100) == (0, "")
    clock.ahead = timedelta(seconds=101)
    assert await sweeper.remove_leaked_pins(100) == (1, "")

    document = await mongo.collection("blobs").find_one({"_id": blob.id})
    assert document is not None
    assert document["pins"] == [planted.id]


async def test_pin_whose_batch_came_late_stays(
    mongo: Mongo, blobs: BlobStore, clock: Clock, planted: Any
) -> None:
    late = new_batch_id()
    blob = await blobs.put("input", b"x", [late])
    sweeper = BlobSweeper(mongo, clock)
    await sweeper.remove_leaked_pins(100)
    await mongo.collection("batches").insert_new({"_id": late})
    clock.ahead = timedelta(seconds=101)

    assert await sweeper.remove_leaked_pins(100) == (0, "")
    assert await mongo.collection("blobs").count({"_id": blob.id, "pins": late}) == 1


async def test_pins_that_are_no_batches_are_left_alone(mongo: Mongo, blobs: BlobStore, clock: Clock) -> None:
    await blobs.put("input", b"x", ["upload_1"])
    sweeper = BlobSweeper(mongo, clock)
    await sweeper.remove_leaked_pins(0)
    clock.ahead = timedelta(days=2)

    assert await sweeper.remove_leaked_pins(0) == (0, "")
