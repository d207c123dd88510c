"""Who works on which segment: batches take turns, leases are kept, and what was offered here comes first."""

import asyncio
import json
from typing import Any

import pytest
from waiting import eventually

from floopy_common.chassis.producer import Producer
from floopy_common.domain.errors import LeaseLost
from floopy_common.domain.segment import SegmentState
from floopy_common.settings import KafkaSettings
from floopy_common.stores.segments import SegmentStore
from floopy_reconciler.core.ready import ReadySegments


async def test_batches_take_turns_whatever_their_size(delivery: Any) -> None:
    large = await delivery.plan(lines=40, segment_lines=4)
    small = [await delivery.plan(lines=4, segment_lines=4) for _ in range(2)]
    store = SegmentStore(delivery.mongo, "worker", 30.0)
    claimed, after = [], ""
    for _ in range(6):
        claim = await store.claim([SegmentState.OPEN], after)
        assert claim is not None
        after = claim.segment["batch_id"]
        claimed.append((after, claim.segment["no"]))

    assert {batch for batch, _ in claimed[:3]} == {large["_id"], *(batch["_id"] for batch in small)}
    assert [no for batch, no in claimed if batch == large["_id"]] == [0, 1, 2, 3]


async def test_what_was_offered_here_is_written_without_a_search(delivery: Any) -> None:
    offered, other = [await delivery.plan(lines=4, segment_lines=4) for _ in range(2)]
    ready = ReadySegments()
    worker = delivery.worker(ready=ready, small=4, scan=3_600.0)
    await worker.step()  # its search finds both
    for batch in (offered, other):
        await delivery.until(worker, batch, "emitted")
    await delivery.mongo.collection("segments").update_many({}, {"$set": {"state": "written"}})
    ready.offer(offered["_id"], await delivery.segments(offered))

    await delivery.until(worker, offered, "emitted")

    assert [segment["state"] for segment in await delivery.segments(other)] == ["written"]
    worker.search()
    await delivery.until(worker, other, "emitted")


async def test_an_offered_segment_that_somebody_else_writes_is_left_to_them(delivery: Any) -> None:
    batch = await delivery.plan(lines=4, segment_lines=4)
    claim = await SegmentStore(delivery.mongo, "another", 30.0).claim([SegmentState.OPEN], "")
    ready = ReadySegments()
    ready.offer(batch["_id"], await delivery.segments(batch))
    worker = delivery.worker(ready=ready, small=4, scan=3_600.0)

    await worker.step()

    assert claim is not None
    (segment,) = await delivery.mongo.collection("segments").find_all(
        {"batch_id": batch["_id"]}, durable=False
    )
    assert segment["lease"]["token"] == claim.segment["lease"]["token"]
    assert ready.take(1, small=True) == []


async def test_what_somebody_else_has_claimed_does_not_hold_up_the_rest(delivery: Any) -> None:
    batches = [await delivery.plan(lines=4, segment_lines=4) for _ in range(3)]
    ready = ReadySegments()
    for batch in batches:
        ready.offer(batch["_id"], await delivery.segments(batch))
    store = SegmentStore(delivery.mongo, "another", 30.0)
    for batch in batches[:2]:
        ((segment),) = await delivery.segments(batch)
        assert await store.claim_one(segment["_id"], [SegmentState.OPEN]) is not None
    worker = delivery.worker(ready=ready, small=2, scan=3_600.0)
    worker._search_at = float("inf")

    assert await worker.step(), "there may be more"
    await worker.step()

    await delivery.until_in(batches[2], 0, "emitted")


async def test_a_claim_walks_the_index_of_what_is_ready(delivery: Any) -> None:
    await delivery.plan(lines=40, segment_lines=1)
    raw = delivery.mongo.collection("segments")._raw
    criteria = {"batch_id": {"$gt": ""}, "ready": True, "state": {"$in": ["open", "written"]}}
    plan = await raw.find(criteria).sort([("batch_id", 1), ("no", 1)]).explain()
    stages = json.dumps(plan["queryPlanner"]["winningPlan"], default=str)
    assert "batch_id_no_state" in stages
    assert '"SORT"' not in stages


async def test_a_fresh_lease_is_respected_and_an_expired_one_is_not(delivery: Any) -> None:
    await delivery.plan(lines=4, segment_lines=4)
    store = SegmentStore(delivery.mongo, "worker", 0.3)
    assert await store.claim([SegmentState.OPEN], "") is not None
    assert await store.claim([SegmentState.OPEN], "") is None
    await eventually(lambda: store.claim([SegmentState.OPEN], ""), timeout=20, what="an expired lease")


async def test_who_lost_the_lease_changes_nothing(delivery: Any) -> None:
    batch = await delivery.plan(lines=4, segment_lines=4)
    store = SegmentStore(delivery.mongo, "zombie", 30.0)
    claim = await store.claim([SegmentState.OPEN], "")
    assert claim is not None
    async with claim.hold() as hold:
        await delivery.mongo.collection("segments").update_one(
            {"_id": claim.segment["_id"]}, {"$set": {"lease.token": "somebody else"}}
        )
        for write in (hold.written({}, {}, {}), hold.emitted(0, 1, 2), hold.give_back(1, failed=True)):
            with pytest.raises(LeaseLost):
                await write
    assert await delivery.in_state(batch, "open")


async def test_nothing_is_claimed_for_emission_while_the_broker_is_known_to_be_away(delivery: Any) -> None:
    away = Producer(KafkaSettings(bootstrap_servers="127.0.0.1:1", send_timeout=0.3))
    worker = delivery.worker(producer=away, gate=(60.0, 60.0))
    first = await delivery.plan(lines=4, segment_lines=4)
    await delivery.until(worker, first, "written")

    async def free() -> bool:
        return (await delivery.segments(first))[0]["lease"]["token"] is None

    await eventually(free, timeout=20, what="a released segment")
    await delivery.mongo.collection("segments").update_many({}, {"$set": {"retry_at": None}})

    second = await delivery.plan(lines=4, segment_lines=4)
    await delivery.until(worker, second, "written")
    await worker.step()

    assert (await delivery.segments(first))[0]["lease"]["attempt"] == 1
    await away.close()


async def test_a_worker_that_is_stopped_leaves_its_segment_to_the_next_at_once(delivery: Any) -> None:
    batch = await delivery.plan(lines=4, segment_lines=4)
    store = SegmentStore(delivery.mongo, "stopped", 60.0)
    claim = await store.claim([SegmentState.OPEN], "")
    assert claim is not None
    reached = asyncio.Event()

    def hit(name: str) -> None:
        if name == "segment.after_claim":
            reached.set()

    task = asyncio.create_task(delivery.worker(hit=hit, owner="stopped").carry_out(claim))
    await reached.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    await delivery.until(delivery.worker(owner="next"), batch, "emitted")
