"""What goes after a batch has ended, and what never goes too early."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from floopy_common.chassis.mongo import Mongo
from floopy_common.domain.ids import line_id, new_batch_id
from floopy_common.stores.blobs import BlobStore
from floopy_common.stores.finishing import AttemptInputStore
from floopy_common.stores.polling import EndingStore
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
def cleanup(mongo: Mongo, blobs: BlobStore, clock: Clock) -> Cleanup:
    return Cleanup(
        ended=EndedStore(mongo, blobs, clock),
        inputs=AttemptInputStore(mongo),
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


async def rest(cleanup: Cleanup) -> int:
    """Steps until nothing is due."""
    steps = 0
    while await cleanup.step():
        steps += 1
    return steps


async def close_audit(mongo: Mongo, planted: Any) -> None:
    await mongo.collection("batches").update_one({"_id": planted.id}, {"$set": {"audit.stage": "closed"}})


async def test_content_goes_after_retention_once_the_audit_is_closed(
    cleanup: Cleanup, mongo: Mongo, planted: Any, clock: Clock
) -> None:
    await close_audit(mongo, planted)
    assert await rest(cleanup) == 1
    assert await pinned(mongo, planted) == 3

    clock.ahead = timedelta(seconds=1001)
    await rest(cleanup)

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
    cleanup: Cleanup, mongo: Mongo, planted: Any, clock: Clock
) -> None:
    await rest(cleanup)
    clock.ahead = timedelta(seconds=5000)
    await rest(cleanup)
    assert await pinned(mongo, planted) == 3

    await close_audit(mongo, planted)
    clock.ahead += timedelta(seconds=6)
    await rest(cleanup)

    assert await pinned(mongo, planted) == 0


async def test_finished_cleanup_is_never_due_again(
    cleanup: Cleanup, mongo: Mongo, planted: Any, clock: Clock
) -> None:
    await close_audit(mongo, planted)
    clock.ahead = timedelta(seconds=1001)
    assert await rest(cleanup) == 2

    clock.ahead = timedelta(days=4000)

    assert await rest(cleanup) == 0


async def test_batch_under_way_is_left_alone(
    cleanup: Cleanup, world: Any, clock: Clock, body: Callable[..., Any]
) -> None:
    await world.plan([body("q")])
    clock.ahead = timedelta(days=4000)

    assert not await cleanup.step()


async def test_batch_refused_before_it_was_planned_is_cleaned_too(
    cleanup: Cleanup, mongo: Mongo, world: Any, clock: Clock, body: Callable[..., Any]
) -> None:
    audit = {"stage": "closed"}
    made = await world.plan([body("q")], plan=None, status="failed", failed_at=datetime.now(UTC), audit=audit)
    await rest(cleanup)
    clock.ahead = timedelta(seconds=1001)
    await rest(cleanup)

    assert await pinned(mongo, made) == 0


async def test_input_that_cannot_be_deleted_is_tried_for_a_while(
    cleanup: Cleanup, mongo: Mongo, planted: Any, clock: Clock
) -> None:
    await mongo.collection("shards").update_one(
        {"batch_id": planted.id}, {"$set": {"state": "settled", "attempts": [{"input_file_id": "file-up"}]}}
    )
    await rest(cleanup)
    batch = await mongo.collection("batches").find_one({"_id": planted.id})
    assert batch is not None
    assert "stage" not in batch["cleanup"]

    clock.ahead = timedelta(seconds=61)
    await rest(cleanup)

    batch = await mongo.collection("batches").find_one({"_id": planted.id})
    assert batch is not None
    assert batch["cleanup"]["stage"] == "content"


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
