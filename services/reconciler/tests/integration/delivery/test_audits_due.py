"""Which batches are audited: found by index, each by one auditor, put off while nothing moves."""

from typing import Any

import pytest
from waiting import eventually

from floopy_common.domain.auditing import Pause
from floopy_common.domain.errors import LeaseLost
from floopy_common.domain.ids import line_id
from floopy_common.domain.segment import Sink
from floopy_common.stores.auditing import AuditStore
from floopy_reconciler.ports import Offsets

from .auditing import claimed, commit_all, confirm_all, due_in, make_due, paced, steps


async def test_an_audit_under_way_does_not_open_what_was_closed_meanwhile(delivery: Any) -> None:
    batch = await delivery.plan(lines=10, segment_lines=10)
    hold = await claimed(AuditStore(delivery.mongo, "slow", 60.0))
    assert hold is not None
    closed = {"audit.stage": "closed", "audit.balanced": True}
    await delivery.mongo.collection("batches").update_one({"_id": batch["_id"]}, {"$set": closed})

    with pytest.raises(LeaseLost):
        await hold.record({"stage": "open", "balanced": False}, 1)

    audit = await delivery.audit_of(batch)
    assert (audit["stage"], audit["balanced"]) == ("closed", True)


async def test_two_auditors_never_have_the_same_batch(delivery: Any) -> None:
    batch = await delivery.plan(lines=10, segment_lines=10)
    store = AuditStore(delivery.mongo, "zombie", 0.3)
    hold = await claimed(store)
    assert hold is not None
    assert hold.batch["_id"] == batch["_id"]
    assert await claimed(store) is None

    async def inherited() -> Any:
        return await claimed(store)

    heir = await eventually(inherited, timeout=20, what="an expired lease")

    for write in (hold.renew(), hold.record({"answered": 99}, 1)):
        with pytest.raises(LeaseLost):
            await write
    await heir.record({"answered": 1}, 100)
    assert (await delivery.audit_of(batch))["answered"] == 1
    assert await claimed(store) is None


async def test_the_due_batch_is_found_by_index(delivery: Any) -> None:
    await delivery.plan(lines=2, segment_lines=2)
    raw = delivery.mongo.collection("batches")._raw
    criteria = {
        "audit.stage": {"$in": ["open", "balanced"]},
        "$expr": {"$lte": ["$audit.next_at", "$$NOW"]},
    }
    plan = str((await raw.find(criteria).sort("audit.next_at", 1).explain())["queryPlanner"]["winningPlan"])
    assert "audit_stage_audit_next_at" in plan
    assert "'SORT'" not in plan


async def test_many_batches_are_audited_together_each_by_its_own_segments(delivery: Any) -> None:
    """Confirmed, short of a receipt, short of a row, without an event out: side by side in one step."""
    plain = await delivery.plan(lines=10, segment_lines=5)
    behind = await delivery.plan(lines=6, segment_lines=2)
    bereft = await delivery.plan(lines=4, segment_lines=2)
    await delivery.emitted(plain)
    worker = delivery.worker(owner="second")
    for batch in (behind, bereft):
        await delivery.until(worker, batch, "emitted")
    fresh = await delivery.plan(lines=3, segment_lines=3)
    for batch in (plain, bereft):
        await confirm_all(delivery, batch)
    for segment in (await delivery.segments(behind))[1:]:
        await delivery.confirm(segment)
    await delivery.mongo.collection("requests").delete_one({"_id": line_id(bereft["_id"], 3)})

    await delivery.auditor().step()

    audits = [await delivery.audit_of(batch) for batch in (plain, behind, bereft, fresh)]
    assert [audit["balanced"] for audit in audits] == [True, False, False, False]
    assert [audit["answered"] for audit in audits] == [10, 6, 4, 0]
    assert [audit["metered"] for audit in audits] == [10, 4, 4, 0]
    assert [audit["logged"] for audit in audits] == [10, 4, 2, 0]
    states = [[s["state"] for s in await delivery.segments(batch)] for batch in (plain, behind, bereft)]
    assert states == [["balanced"] * 2, ["emitted", "balanced", "balanced"], ["balanced", "emitted"]]
    assert [seen for seen in delivery.reports.seen if seen.startswith("miscounted")] == ["miscounted logging"]


async def test_what_does_not_move_is_put_off_further_and_further_without_a_claim(delivery: Any) -> None:
    batch = await delivery.plan(lines=10, segment_lines=10)
    (segment,) = await delivery.emitted(batch)
    hits: list[str] = []
    auditor = paced(delivery, hits, interval=100.0, longest=500.0)
    await auditor.step()
    assert await due_in(delivery, batch) == 100
    assert hits == ["audit.after_claim", "audit.after_record"]

    gaps = []
    for _ in range(4):
        await make_due(delivery, batch)
        await auditor.step()
        gaps.append(await due_in(delivery, batch))
    assert gaps == [200, 400, 500, 500]
    assert hits == ["audit.after_claim", "audit.after_record"]

    await delivery.confirm(segment, sinks=(Sink.LOGGING,))
    await make_due(delivery, batch)
    await auditor.step()
    assert await due_in(delivery, batch) == 100
    assert (await delivery.audit_of(batch))["logged"] == 10


@pytest.mark.parametrize("claims", [False, True])
async def test_an_audit_woken_while_it_is_put_off_is_due_soon(delivery: Any, claims: bool) -> None:
    batch = await delivery.plan(lines=10, segment_lines=10)
    store = AuditStore(delivery.mongo, "auditor", 60.0)
    batches = delivery.mongo.collection("batches")
    for woken, seconds in ((False, 320), (True, 100)):
        await batches.update_one({"_id": batch["_id"]}, {"$set": {"audit.pace": 160.0}})
        await make_due(delivery, batch)
        due = await store.due(10)
        holds = await store.claim(due) if claims else []
        if woken:
            await store.wake(batch["_id"], 1.0)
        for hold in holds:
            await hold.record({}, Pause(100.0, 1_000.0))
        if not claims:
            await store.put_off(due, Pause(100.0, 1_000.0))
        assert await due_in(delivery, batch) == seconds


async def test_what_another_has_audited_since_it_was_found_is_left_to_it(delivery: Any) -> None:
    mine, others = (
        await delivery.plan(lines=2, segment_lines=2),
        await delivery.plan(lines=2, segment_lines=2),
    )
    store, rival = (AuditStore(delivery.mongo, owner, 60.0) for owner in ("one", "two"))
    found = await store.due(10)
    assert len(found) == 2
    (hold,) = await rival.claim([batch for batch in found if batch["_id"] == others["_id"]])

    await store.put_off([batch for batch in found if batch["_id"] == others["_id"]], Pause(900.0, 900.0))
    assert await due_in(delivery, others) == 0
    await hold.record({"answered": 7}, 300)

    holds = await store.claim(found)
    assert [hold.batch["_id"] for hold in holds] == [mine["_id"]]
    await store.put_off(found, Pause(900.0, 900.0))
    assert await due_in(delivery, others) == 300
    assert (await delivery.audit_of(others))["answered"] == 7


async def test_a_batch_that_cannot_be_audited_keeps_no_other_from_its_audit(delivery: Any) -> None:
    batches = [await delivery.plan(lines=2, segment_lines=2) for _ in range(3)]
    worker = delivery.worker()
    for batch in batches:
        await delivery.until(worker, batch, "emitted")
    await delivery.mongo.collection("segments").update_one(
        {"batch_id": batches[1]["_id"]}, {"$set": {"emitted.at": "never"}}
    )
    auditor = delivery.auditor(backoff_min=100.0)

    with pytest.raises(TypeError):
        await auditor.step()

    assert [(await delivery.audit_of(batch))["answered"] for batch in batches] == [2, 0, 2]
    await steps(auditor)
    await confirm_all(delivery, batches[2])
    await steps(auditor)
    assert (await delivery.audit_of(batches[2]))["balanced"]


async def test_offsets_are_read_once_for_all_that_is_late(delivery: Any) -> None:
    batches = [await delivery.plan(lines=2, segment_lines=2) for _ in range(3)]
    worker = delivery.worker()
    segments = []
    for batch in batches:
        segments += await delivery.until(worker, batch, "emitted")
    await commit_all(delivery, segments)
    real, reads = delivery.offsets(), []

    class Told:
        async def read(self) -> Offsets | None:
            reads.append(1)
            found: Offsets | None = await real.read()
            return found

    await delivery.auditor(offsets=Told()).step()

    assert len(reads) == 1
    assert [await delivery.in_state(batch, "written") for batch in batches] == [True] * 3
    assert "sent again 3" in delivery.reports.seen


async def test_a_batch_of_more_segments_than_are_looked_at_together_is_gone_through_in_pieces(
    delivery: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("floopy_reconciler.core.audit.TOGETHER", 2)
    large, small = (
        await delivery.plan(lines=10, segment_lines=2),
        await delivery.plan(lines=2, segment_lines=2),
    )
    worker = delivery.worker()
    for batch in (large, small):
        await delivery.until(worker, batch, "emitted")
        await confirm_all(delivery, batch)
    auditor = delivery.auditor()

    assert await auditor.step()  # there was no room for the other
    await auditor.step()

    assert [(await delivery.audit_of(batch))["balanced"] for batch in (large, small)] == [True, True]
    assert await delivery.in_state(large, "balanced")
