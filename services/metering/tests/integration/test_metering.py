"""The real floopy-metering on a real broker and a real MongoDB: exact, whatever is repeated or killed."""

import asyncio
import signal
from typing import Any

import msgspec
import pytest
from floopy_sinks.bench import Bench
from floopy_sinks.lines import COMPLETED, failed, make_segment
from waiting import eventually

from floopy_common.chassis.mongo import Document
from floopy_common.domain.ids import new_batch_id, receipt_id, rollup_id
from floopy_common.domain.line import LineStatus
from floopy_common.events.lines import LineCompleted
from floopy_common.stores.caps import CapStore
from floopy_metering.core.rows import ledger_row

SERVICE = "floopy-metering"
MONTH = "202611"
COLLECTIONS = ("usage_ledger", "usage_rollups", "receipts")


async def _planned(
    bench: Bench, batch_id: str, *, segments: int = 1, lines: int = 100, **fields: Any
) -> None:
    """A planned batch that has reserved its lines."""
    batch: Document = {
        "_id": batch_id,
        "org_id": "org_1",
        "status": "in_progress",
        "plan": {"segments": segments, "month": MONTH, "total": lines * segments},
        "audit": {"stage": "open"},
        "outbox": [],
    }
    await bench.mongo.collection("batches").insert_new({**batch, **fields})
    assert await CapStore(bench.mongo).reserve("org_1", batch_id, lines * segments, None, MONTH)


async def _cap(bench: Bench) -> Document:
    cap = await bench.mongo.collection("caps").find_one({"_id": f"org_1:{MONTH}"})
    assert cap is not None
    return cap


async def _settled(bench: Bench, batch_id: str) -> Document:
    async def settled() -> Document | None:
        return await bench.mongo.collection("usage_batches").find_one(
            {"_id": batch_id, "settled": True, "outbox": []}
        )

    return await eventually(settled, what="a settled batch whose event is relayed")


async def _state(bench: Bench) -> dict[str, list[Document]]:
    return {name: await bench.rows(name) for name in (*COLLECTIONS, "usage_batches", "caps")}


def _expected(lines: list[LineCompleted]) -> dict[str, int]:
    usages = [line.usage for line in lines if line.usage is not None]
    return {
        "lines": len(lines),
        "failed": sum(line.status is not LineStatus.SUCCEEDED for line in lines),
        "not_run": sum(line.status in {LineStatus.CANCELLED, LineStatus.EXPIRED} for line in lines),
        "billable": len(usages),
        "input_tokens": sum(usage.input_tokens for usage in usages),
        "cached_tokens": sum(usage.cached_tokens for usage in usages),
        "output_tokens": sum(usage.output_tokens for usage in usages),
        "reasoning_tokens": sum(usage.reasoning_tokens for usage in usages),
        "cost_nano_usd": sum(line.cost.nano_usd or 0 for line in lines),
        "unpriced": sum(line.cost.nano_usd is None for line in lines),
    }


def _mixed(batch_id: str, **kind: Any) -> list[LineCompleted]:
    """A hundred lines: mostly succeeded, some failed, some never run, one without a price."""
    lines = make_segment(batch_id, **kind)
    lines[3] = failed(lines[3])
    lines[7] = failed(lines[7], LineStatus.CANCELLED)
    lines[8] = msgspec.structs.replace(
        lines[8], cost=msgspec.structs.replace(lines[8].cost, nano_usd=None, flag="pricing_missing")
    )
    return lines


async def test_a_batch_is_metered_recorded_and_settled(bench: Bench) -> None:
    batch_id = new_batch_id()
    await _planned(bench, batch_id, segments=2)
    first, second = _mixed(batch_id, segments=2), make_segment(batch_id, no=1, segments=2)

    async with bench.service(SERVICE):
        await bench.produce(first)
        await bench.receipts(1)
        assert await bench.rows("usage_batches") == []
        await bench.produce(second)
        usage = await _settled(bench, batch_id)

    assert await bench.rows("usage_ledger") == [ledger_row(line) for line in (*first, *second)]
    assert {name: usage[name] for name in _expected(first)} == _expected(first + second)
    assert (usage["org_id"], usage["month"], usage["revision"]) == ("org_1", MONTH, 1)
    # 200 lines were reserved; the cancelled one was never run
    assert await _cap(bench) == {"_id": f"org_1:{MONTH}", "used": 199, "held": 0, "reserved": {}}
    (event,) = await bench.read("usage.recorded", 1)
    said = msgspec.json.decode(event.value)
    assert (said["id"], event.key) == (f"{batch_id}:usage.recorded:1", batch_id.encode())
    assert said["data"]["cost_nano_usd"] == usage["cost_nano_usd"]


async def test_a_rollup_tells_usage_apart_by_model_and_hour(local_bench: Bench) -> None:
    bench = local_bench
    batch_id = new_batch_id()
    lines = _mixed(batch_id)
    async with bench.service(SERVICE):
        await bench.produce(lines)
        (receipt,) = await bench.receipts(1)

    (rollup,) = await bench.rows("usage_rollups")
    hour = COMPLETED.replace(minute=0, second=0, microsecond=0)
    assert (rollup["_id"], rollup["hours"]) == (rollup_id(batch_id, 0), [hour])
    for model in ("gpt-4o", "gpt-4o-mini"):
        (group,) = [group for group in rollup["groups"] if group["model"] == model]
        of_model = _expected([line for line in lines if line.model == model])
        assert {name: group[name] for name in of_model} == of_model
        assert (group["hour"], group["api_key_id"], group["endpoint"]) == (
            hour,
            "key_1",
            "/v1/chat/completions",
        )
    assert receipt["_id"] == receipt_id(batch_id, 0, "metering")
    assert (receipt["lines"], receipt["parked"]) == (100, 0)


async def test_a_segment_delivered_again_over_half_its_rows_changes_nothing(bench: Bench) -> None:
    batch_id = new_batch_id()
    await _planned(bench, batch_id)
    lines = _mixed(batch_id)
    async with bench.service(SERVICE):
        await bench.produce(lines)
        await _settled(bench, batch_id)
        before = await _state(bench)
        removed = {"_id": {"$in": [line.line_id for line in lines[::2]]}}
        await bench.mongo.collection("usage_ledger").delete_many(removed)

        where, last = await bench.produce(lines)
        await bench.caught_up(_group(bench), where, last)

    assert await _state(bench) == before


def _group(bench: Bench) -> str:
    return f"{bench.settings.topic_prefix}{SERVICE}.batch.line.completed"


@pytest.mark.parametrize(
    "name",
    [
        "metering.after_insert",
        "metering.after_rollup",
        "metering.after_receipt",
        "metering.after_usage",
        "metering.after_settle",
    ],
)
async def test_killed_between_any_two_steps_the_state_is_exact(local_bench: Bench, name: str) -> None:
    bench = local_bench
    batch_id = new_batch_id()
    await _planned(bench, batch_id)
    lines = _mixed(batch_id)
    where, last = await bench.produce(lines)

    async with bench.service(SERVICE, FLOOPY_FAIL_AT=name) as process:
        assert await process.exited() == -signal.SIGKILL
    assert await bench.committed(_group(bench), "batch.line.completed", where) <= last
    async with bench.service(SERVICE):
        usage = await _settled(bench, batch_id)
        await bench.caught_up(_group(bench), where, last)

    assert await bench.rows("usage_ledger") == [ledger_row(line) for line in lines]
    assert {name: usage[name] for name in _expected(lines)} == _expected(lines)
    assert len(await bench.rows("usage_rollups")) == len(await bench.rows("receipts")) == 1
    assert (await _cap(bench))["used"] == 99


async def test_a_line_it_cannot_take_is_parked_and_replaced_when_replayed(bench: Bench) -> None:
    batch_id = new_batch_id()
    await _planned(bench, batch_id)
    lines = make_segment(batch_id)
    await bench.accept_only("usage_ledger", {"custom_id": {"$ne": "mine-42"}})
    async with bench.service(SERVICE, FLOOPY_FAIL_AT="metering.after_dead_letter") as process:
        where, last = await bench.produce(lines)
        assert await process.exited() == -signal.SIGKILL

    async with bench.service(SERVICE):
        (receipt,) = await bench.receipts(1)
        assert (receipt["lines"], receipt["parked"]) == (100, 1)
        first = await _settled(bench, batch_id)
        assert (first["revision"], first["lines"]) == (1, 99)
        await bench.caught_up(_group(bench), where, last)
        await bench.accept_only("usage_ledger", {})

        code, said = await bench.floopy("dlq", "replay", "--json")

        assert (code, said) == (0, '{"replayed": 1, "gone": []}\n')
        # on its own partition, where its segment's consumer is
        await bench.caught_up(_group(bench), where, last + 1)
        await eventually(lambda: _unparked(bench), what="a receipt without parked lines")
        usage = await eventually(lambda: _revision(bench, batch_id, 2), what="the second revision")

    assert await bench.rows("usage_ledger") == [ledger_row(line) for line in lines]
    assert {name: usage[name] for name in _expected(lines)} == _expected(lines)
    (rollup,) = await bench.rows("usage_rollups")
    assert rollup["lines"] == 100
    assert [event.key for event in await bench.read("usage.recorded", 2)] == [batch_id.encode()] * 2
    assert await bench.floopy("dlq", "list", "--json") == (0, "[]\n")


async def _unparked(bench: Bench) -> bool:
    (receipt,) = await bench.rows("receipts")
    return bool(receipt["parked"] == 0)


async def _revision(bench: Bench, batch_id: str, revision: int) -> Document | None:
    return await bench.mongo.collection("usage_batches").find_one(
        {"_id": batch_id, "revision": revision, "outbox": []}
    )


@pytest.mark.parametrize(
    ("status", "plan"), [("failed", {"segments": 3, "month": MONTH}), ("cancelled", None)]
)
async def test_a_batch_that_ended_without_segments_gives_its_reservation_back(
    local_bench: Bench, status: str, plan: Document | None
) -> None:
    """No event tells of it: what an event would do at once, the scan does a little later."""
    bench = local_bench
    batch_id, open_id = new_batch_id(), new_batch_id()
    await _planned(bench, open_id)
    await _planned(bench, batch_id, status=status, plan=plan)

    async with bench.service(SERVICE):

        async def settled() -> bool:
            return batch_id not in (await _cap(bench))["reserved"]

        await eventually(settled, what="the reservation is given back")

    assert await _cap(bench) == {"_id": f"org_1:{MONTH}", "used": 0, "held": 100, "reserved": {open_id: 100}}
    assert await bench.rows("usage_batches") == []


async def test_an_event_settles_without_waiting_for_the_scan(local_bench: Bench) -> None:
    bench = local_bench
    batch_id = new_batch_id()
    async with bench.service(SERVICE, FLOOPY_SCAN__INTERVAL="3600"):
        await _planned(bench, batch_id, status="failed")
        await bench.send("batch.failed", 1, [(batch_id.encode(), b"what it says does not matter", None)])

        async def settled() -> bool:
            return not (await _cap(bench))["reserved"]

        await eventually(settled, what="the reservation is given back")


async def test_a_stopped_process_ends_in_time_and_loses_nothing(bench: Bench) -> None:
    batch_id = new_batch_id()
    lines = make_segment(batch_id, 3_000)
    async with bench.service(SERVICE) as process:
        where, last = await bench.produce(lines)
        async with asyncio.timeout(20):
            await process.stop(grace=18)
        assert process.returncode == 0
    async with bench.service(SERVICE):
        await bench.receipts(1)
        await bench.caught_up(_group(bench), where, last)
    assert len(await bench.rows("usage_ledger")) == 3_000
