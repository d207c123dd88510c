"""No balance is believed before the rows are counted, and they are counted again until retention is over."""

from datetime import UTC, datetime
from typing import Any

import pytest
from waiting import eventually

from floopy_common.domain.ids import line_id
from floopy_common.domain.segment import Sink
from floopy_common.stores.auditing import ROWS_OF, _rows_of

from .auditing import balanced, commit_all, confirm_all, heal, make_due, steps


@pytest.mark.parametrize("sink", list(Sink))
async def test_rows_that_vanish_after_balance_void_the_receipt_and_come_again(
    delivery: Any, sink: Sink
) -> None:
    batch = await delivery.plan(lines=20, segment_lines=10)
    segments = await delivery.emitted(batch)
    await confirm_all(delivery, batch)
    await commit_all(delivery, segments)
    auditor = delivery.auditor()
    await balanced(delivery, auditor, batch)

    await delivery.mongo.collection(ROWS_OF[sink]).delete_one({"_id": f"{batch['_id']}:000000003"})

    async def voided() -> bool:
        await auditor.step()
        return f"miscounted {sink.value}" in delivery.reports.seen

    await eventually(voided, timeout=20, what="a void receipt")
    audit = await delivery.audit_of(batch)
    assert (audit["stage"], audit["balanced"]) == ("open", False)
    assert sorted(audit[n] for n in ("logged", "metered", "scored")) == [10, 20, 20]
    await steps(auditor)
    assert (await delivery.segments(batch))[0]["state"] == "written"
    await heal(delivery, batch, segments[0])
    await balanced(delivery, auditor, batch)


async def test_a_rollup_that_vanishes_voids_meterings_receipt(delivery: Any) -> None:
    batch = await delivery.plan(lines=10, segment_lines=10)
    await delivery.emitted(batch)
    await confirm_all(delivery, batch)
    auditor = delivery.auditor()
    await balanced(delivery, auditor, batch)

    await delivery.mongo.collection("usage_rollups").delete_many({"batch_id": batch["_id"]})

    async def voided() -> bool:
        await auditor.step()
        return "miscounted metering" in delivery.reports.seen

    await eventually(voided, timeout=20, what="a void receipt")


async def test_a_balance_is_not_believed_before_the_rows_are_counted(delivery: Any) -> None:
    batch = await delivery.plan(lines=20, segment_lines=10)
    await delivery.emitted(batch)
    await confirm_all(delivery, batch)
    await delivery.mongo.collection("scores").delete_many({})

    await steps(delivery.auditor())

    assert delivery.reports.seen.count("miscounted feedback") == 2
    assert "balanced" not in delivery.reports.seen
    assert not (await delivery.audit_of(batch))["balanced"]


async def test_receipts_that_vanish_are_asked_for_again(delivery: Any) -> None:
    batch = await delivery.plan(lines=20, segment_lines=10)
    segments = await delivery.emitted(batch)
    await confirm_all(delivery, batch)
    await commit_all(delivery, segments)
    auditor = delivery.auditor()
    await balanced(delivery, auditor, batch)

    await delivery.mongo.collection("receipts").delete_many({"segment": 1})
    await steps(auditor)

    assert [segment["state"] for segment in await delivery.segments(batch)] == ["balanced", "written"]
    assert not (await delivery.audit_of(batch))["balanced"]


async def test_parked_lines_keep_a_batch_from_balance_and_are_not_emitted_again(delivery: Any) -> None:
    batch = await delivery.plan(lines=10, segment_lines=10)
    (segment,) = await delivery.emitted(batch)
    await delivery.confirm(segment, sinks=(Sink.LOGGING,), parked=1)
    await delivery.confirm(segment, sinks=(Sink.METERING, Sink.FEEDBACK))
    await commit_all(delivery, [segment])
    auditor = delivery.auditor()

    await steps(auditor)

    audit = await delivery.audit_of(batch)
    assert (audit["logged"], audit["parked"], audit["balanced"], audit["stage"]) == (10, 1, False, "open")
    assert await delivery.in_state(batch, "balanced")

    await delivery.mongo.collection("receipts").update_many({}, {"$set": {"parked": 0}})
    await balanced(delivery, auditor, batch)


async def test_a_ledger_row_that_is_parked_is_missing_from_no_rollup(delivery: Any) -> None:
    batch = await delivery.plan(lines=10, segment_lines=10)
    (segment,) = await delivery.emitted(batch)
    await delivery.confirm(segment, sinks=(Sink.LOGGING, Sink.FEEDBACK))
    await delivery.confirm(segment, sinks=(Sink.METERING,), parked=1)
    parked = {"status": "parked", "batch_id": batch["_id"], "segment": 0}
    await delivery.mongo.collection("usage_ledger").update_one(
        {"_id": line_id(batch["_id"], 4)}, {"$set": parked}
    )
    await delivery.mongo.collection("usage_rollups").update_many({}, {"$set": {"lines": 9}})
    auditor = delivery.auditor()

    await steps(auditor)

    audit = await delivery.audit_of(batch)
    assert (audit["metered"], audit["parked"], audit["balanced"]) == (10, 1, False)
    assert await delivery.in_state(batch, "balanced")

    await delivery.mongo.collection("usage_rollups").update_many({}, {"$set": {"lines": 8}})
    await make_due(delivery, batch)
    await steps(auditor)
    assert not await delivery.in_state(batch, "balanced")


async def test_an_audit_is_closed_after_a_last_recount_once_retention_is_over(delivery: Any) -> None:
    batch = await delivery.plan(lines=10, segment_lines=10)
    (segment,) = await delivery.emitted(batch)
    await confirm_all(delivery, batch)
    await delivery.mongo.collection("requests").delete_many({})
    auditor = delivery.auditor(retention=0.0)

    await steps(auditor)
    assert (await delivery.audit_of(batch))["stage"] == "open"

    await delivery.confirm(segment)
    audit = await balanced(delivery, auditor, batch)

    assert (audit["stage"], audit["next_at"]) == ("closed", None)
    assert not await auditor.step()


async def test_recounts_are_spaced_further_and_further(delivery: Any) -> None:
    batch = await delivery.plan(lines=10, segment_lines=10)
    await delivery.emitted(batch)
    await confirm_all(delivery, batch)
    auditor = delivery.auditor(backoff_min=100.0)
    gaps = []
    for _ in range(4):
        await make_due(delivery, batch)
        await auditor.step()
        audit = await delivery.audit_of(batch)
        gaps.append((audit["next_at"] - datetime.now(UTC)).total_seconds())

    assert [round(gap, -1) for gap in gaps] == [100, 200, 400, 400]


async def test_a_long_recount_is_done_in_pieces(delivery: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("floopy_reconciler.core.recount._SLICE", 2)
    monkeypatch.setattr("floopy_reconciler.core.recount._SLICES", 2)
    batch = await delivery.plan(lines=20, segment_lines=2)
    await delivery.emitted(batch)
    await confirm_all(delivery, batch)
    auditor = delivery.auditor()

    await auditor.step()
    assert (await delivery.audit_of(batch))["recount"]["after"] == 3
    await balanced(delivery, auditor, batch)


async def test_rows_are_counted_by_their_keys_alone(delivery: Any) -> None:
    batch = await delivery.plan(lines=2, segment_lines=2)
    (segment,) = await delivery.segments(batch)
    await delivery.confirm(segment)
    for sink, name in ROWS_OF.items():
        rows = delivery.mongo.collection(name)._raw
        command = {"aggregate": name, "pipeline": _rows_of(segment, sink), "cursor": {}}
        plan = str(await rows.database.command("explain", command))
        assert "COUNT_SCAN" in plan
        assert "FETCH" not in plan
