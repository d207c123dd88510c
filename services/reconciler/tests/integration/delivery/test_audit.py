"""The audit against a real database and real brokers: numbers, healing, and when it had better wait."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from floopy_common.domain.auditing import Pause
from floopy_common.domain.errors import LeaseLost
from floopy_common.domain.ids import line_id
from floopy_common.domain.segment import Sink
from floopy_common.settings import KafkaSettings
from floopy_common.stores.auditing import ROWS_OF, AuditStore, _rows_of
from floopy_reconciler.core.audit import Auditor, AuditTimes
from floopy_reconciler.core.recount import Recount
from floopy_reconciler.ports import Offsets

Wait = Callable[..., Awaitable[Any]]


async def confirm_all(delivery: Any, batch: dict[str, Any], **options: Any) -> None:
    for segment in await delivery.segments(batch):
        await delivery.confirm(segment, **options)


async def commit_all(delivery: Any, segments: list[dict[str, Any]], sinks: Any = tuple(Sink)) -> None:
    """The groups have gone past everything that was emitted."""
    ends: dict[int, int] = {}
    for segment in segments:
        place = segment["emitted"]
        ends[place["partition"]] = max(ends.get(place["partition"], 0), place["last_offset"] + 1)
    for partition, end in ends.items():
        for sink in sinks:
            await delivery.commit(sink, partition, end)


async def balanced(delivery: Any, auditor: Any, batch: dict[str, Any], wait_until: Wait) -> dict[str, Any]:
    async def stepped() -> Any:
        await auditor.step()
        audit = await delivery.audit_of(batch)
        return audit if audit["balanced"] else None

    return dict(await wait_until(stepped, "balance"))


async def steps(auditor: Any, times: int = 5) -> None:
    for _ in range(times):
        await auditor.step()


async def claimed(store: AuditStore) -> Any:
    """A hold on the batch that is due; None when there is none, or somebody else has it."""
    due = await store.due(10)
    return next(iter(await store.claim(due)), None) if due else None


async def make_due(delivery: Any, batch: dict[str, Any]) -> None:
    await delivery.mongo.collection("batches").update_one(
        {"_id": batch["_id"]}, {"$set": {"audit.next_at": datetime(2020, 1, 1, tzinfo=UTC)}}
    )


async def test_a_batch_is_balanced_when_every_sink_has_confirmed_every_line(
    delivery: Any, wait_until: Wait
) -> None:
    batch = await delivery.plan(lines=20, segment_lines=10)
    segments = await delivery.emitted(batch)
    auditor = delivery.auditor()
    await delivery.confirm(segments[0])
    await auditor.step()

    audit = await delivery.audit_of(batch)
    assert [audit[n] for n in ("answered", "logged", "metered", "scored")] == [20, 10, 10, 10]
    assert (audit["stage"], audit["balanced"]) == ("open", False)
    assert [segment["state"] for segment in await delivery.segments(batch)] == ["balanced", "emitted"]

    await delivery.confirm(segments[1])
    audit = await balanced(delivery, auditor, batch, wait_until)

    assert [audit[n] for n in ("answered", "logged", "metered", "scored", "parked")] == [20, 20, 20, 20, 0]
    assert audit["stage"] == "balanced"
    assert await delivery.in_state(batch, "balanced")
    assert delivery.reports.seen.count("balanced") == 1


async def test_a_batch_is_not_balanced_before_it_has_ended(delivery: Any, wait_until: Wait) -> None:
    batch = await delivery.plan(lines=4, segment_lines=4, status="finalizing")
    await delivery.emitted(batch)
    await confirm_all(delivery, batch)
    auditor = delivery.auditor()

    await steps(auditor)
    assert not (await delivery.audit_of(batch))["balanced"]

    await delivery.mongo.collection("batches").update_one(
        {"_id": batch["_id"]}, {"$set": {"status": "completed"}}
    )
    await balanced(delivery, auditor, batch, wait_until)


async def test_what_a_sink_has_passed_without_a_receipt_is_emitted_again(
    delivery: Any, wait_until: Wait
) -> None:
    batch = await delivery.plan(lines=20, segment_lines=10)
    segments = await delivery.emitted(batch)
    await confirm_all(delivery, batch, sinks=(Sink.METERING, Sink.FEEDBACK))
    await delivery.confirm(segments[1])
    await commit_all(delivery, segments)
    auditor = delivery.auditor()

    await auditor.step()

    assert [segment["state"] for segment in await delivery.segments(batch)] == ["written", "balanced"]
    assert "sent again 1" in delivery.reports.seen
    await heal(delivery, batch, segments[0], wait_until)
    await balanced(delivery, auditor, batch, wait_until)


async def heal(delivery: Any, batch: dict[str, Any], segment: dict[str, Any], wait_until: Wait) -> None:
    """Emit what is to be emitted again; the sinks then have it."""
    worker, no = delivery.worker(owner="healer"), segment["no"]

    async def stepped() -> bool:
        await worker.step()
        return bool((await delivery.segments(batch))[no]["emitted"]["times"] == 2)

    await wait_until(stepped, "another emission")
    await delivery.confirm(segment)


@pytest.mark.parametrize("behind", list(Sink))
async def test_a_sink_that_has_not_come_so_far_is_waited_for(delivery: Any, behind: Sink) -> None:
    batch = await delivery.plan(lines=10, segment_lines=10)
    (segment,) = await delivery.emitted(batch)
    others = tuple(sink for sink in Sink if sink is not behind)
    await delivery.confirm(segment, sinks=others)
    await commit_all(delivery, [segment], others)
    await delivery.commit(behind, segment["emitted"]["partition"], segment["emitted"]["last_offset"])

    await steps(delivery.auditor())

    assert await delivery.in_state(batch, "emitted")


async def test_offsets_that_cannot_be_read_mean_waiting(delivery: Any) -> None:
    batch = await delivery.plan(lines=10, segment_lines=10)
    await commit_all(delivery, await delivery.emitted(batch))
    unreadable = delivery.offsets(KafkaSettings(bootstrap_servers="127.0.0.1:1", topic_prefix="x"))

    await steps(delivery.auditor(offsets=unreadable))

    assert await delivery.in_state(batch, "emitted")


async def test_a_log_that_lost_its_records_is_filled_again(
    delivery: Any, make_topic: Callable[[KafkaSettings], Awaitable[None]], wait_until: Wait
) -> None:
    batch = await delivery.plan(lines=10, segment_lines=10)
    await delivery.emitted(batch)
    lost = delivery.settings.model_copy(update={"topic_prefix": "lost" + delivery.settings.topic_prefix})
    await make_topic(lost)

    auditor = delivery.auditor(offsets=delivery.offsets(lost))

    async def sent_again() -> bool:
        # a broker may not answer for a topic that is this young; the audit then waits
        await make_due(delivery, batch)
        await steps(auditor)
        return bool(await delivery.in_state(batch, "written"))

    await wait_until(sent_again, "the segment emitted again")


async def test_a_log_that_begins_after_the_segment_is_filled_again(delivery: Any) -> None:
    batch = await delivery.plan(lines=10, segment_lines=10)
    (segment,) = await delivery.emitted(batch)
    place = segment["emitted"]

    class Expired:
        async def read(self) -> Offsets:
            partition = place["partition"]
            begin, end = place["first_offset"] + 1, place["last_offset"] + 100
            return Offsets({partition: begin}, {partition: end}, {sink: {} for sink in Sink})

    await steps(delivery.auditor(offsets=Expired()))

    assert await delivery.in_state(batch, "written")


async def test_a_receipt_that_comes_while_offsets_are_read_counts(delivery: Any) -> None:
    batch = await delivery.plan(lines=10, segment_lines=10)
    (segment,) = await delivery.emitted(batch)
    await commit_all(delivery, [segment])
    real = delivery.offsets()

    class Meanwhile:
        async def read(self) -> Offsets | None:
            offsets: Offsets | None = await real.read()
            await delivery.confirm(segment)
            return offsets

    await steps(delivery.auditor(offsets=Meanwhile()))

    assert await delivery.in_state(batch, "balanced")


async def test_emissions_are_spaced_by_a_doubling_back_off(delivery: Any, wait_until: Wait) -> None:
    batch = await delivery.plan(lines=10, segment_lines=10)
    (segment,) = await delivery.emitted(batch)
    await commit_all(delivery, [segment])
    patient = delivery.auditor(backoff_min=100.0)
    await steps(patient)
    assert await delivery.in_state(batch, "emitted")

    segments = delivery.mongo.collection("segments")
    for resends, age, state in ((0, 101, "written"), (1, 150, "emitted"), (1, 201, "written")):
        at = datetime.now(UTC) - timedelta(seconds=age)
        await segments.update_one(
            {"_id": segment["_id"]}, {"$set": {"state": "emitted", "resends": resends, "emitted.at": at}}
        )
        await make_due(delivery, batch)
        await patient.step()
        assert await delivery.in_state(batch, state), (resends, age)


@pytest.mark.parametrize("sink", list(Sink))
async def test_rows_that_vanish_after_balance_void_the_receipt_and_come_again(
    delivery: Any, wait_until: Wait, sink: Sink
) -> None:
    batch = await delivery.plan(lines=20, segment_lines=10)
    segments = await delivery.emitted(batch)
    await confirm_all(delivery, batch)
    await commit_all(delivery, segments)
    auditor = delivery.auditor()
    await balanced(delivery, auditor, batch, wait_until)

    await delivery.mongo.collection(ROWS_OF[sink]).delete_one({"_id": f"{batch['_id']}:000000003"})

    async def voided() -> bool:
        await auditor.step()
        return f"miscounted {sink.value}" in delivery.reports.seen

    await wait_until(voided, "a void receipt")
    audit = await delivery.audit_of(batch)
    assert (audit["stage"], audit["balanced"]) == ("open", False)
    assert sorted(audit[n] for n in ("logged", "metered", "scored")) == [10, 20, 20]
    await steps(auditor)
    assert (await delivery.segments(batch))[0]["state"] == "written"
    await heal(delivery, batch, segments[0], wait_until)
    await balanced(delivery, auditor, batch, wait_until)


async def test_a_rollup_that_vanishes_voids_meterings_receipt(delivery: Any, wait_until: Wait) -> None:
    batch = await delivery.plan(lines=10, segment_lines=10)
    await delivery.emitted(batch)
    await confirm_all(delivery, batch)
    auditor = delivery.auditor()
    await balanced(delivery, auditor, batch, wait_until)

    await delivery.mongo.collection("usage_rollups").delete_many({"batch_id": batch["_id"]})

    async def voided() -> bool:
        await auditor.step()
        return "miscounted metering" in delivery.reports.seen

    await wait_until(voided, "a void receipt")


async def test_a_balance_is_not_believed_before_the_rows_are_counted(delivery: Any) -> None:
    batch = await delivery.plan(lines=20, segment_lines=10)
    await delivery.emitted(batch)
    await confirm_all(delivery, batch)
    await delivery.mongo.collection("scores").delete_many({})

    await steps(delivery.auditor())

    assert delivery.reports.seen.count("miscounted feedback") == 2
    assert "balanced" not in delivery.reports.seen
    assert not (await delivery.audit_of(batch))["balanced"]


async def test_receipts_that_vanish_are_asked_for_again(delivery: Any, wait_until: Wait) -> None:
    batch = await delivery.plan(lines=20, segment_lines=10)
    segments = await delivery.emitted(batch)
    await confirm_all(delivery, batch)
    await commit_all(delivery, segments)
    auditor = delivery.auditor()
    await balanced(delivery, auditor, batch, wait_until)

    await delivery.mongo.collection("receipts").delete_many({"segment": 1})
    await steps(auditor)

    assert [segment["state"] for segment in await delivery.segments(batch)] == ["balanced", "written"]
    assert not (await delivery.audit_of(batch))["balanced"]


async def test_parked_lines_keep_a_batch_from_balance_and_are_not_emitted_again(
    delivery: Any, wait_until: Wait
) -> None:
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
    await balanced(delivery, auditor, batch, wait_until)


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


async def test_an_audit_is_closed_after_a_last_recount_once_retention_is_over(
    delivery: Any, wait_until: Wait
) -> None:
    batch = await delivery.plan(lines=10, segment_lines=10)
    (segment,) = await delivery.emitted(batch)
    await confirm_all(delivery, batch)
    await delivery.mongo.collection("requests").delete_many({})
    auditor = delivery.auditor(retention=0.0)

    await steps(auditor)
    assert (await delivery.audit_of(batch))["stage"] == "open"

    await delivery.confirm(segment)
    audit = await balanced(delivery, auditor, batch, wait_until)

    assert (audit["stage"], audit["next_at"]) == ("closed", None)
    assert not await auditor.step()


async def test_recounts_are_spaced_further_and_further(delivery: Any, wait_until: Wait) -> None:
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


async def test_two_auditors_never_have_the_same_batch(delivery: Any, wait_until: Wait) -> None:
    batch = await delivery.plan(lines=10, segment_lines=10)
    store = AuditStore(delivery.mongo, "zombie", 0.3)
    hold = await claimed(store)
    assert hold is not None
    assert hold.batch["_id"] == batch["_id"]
    assert await claimed(store) is None

    async def inherited() -> Any:
        return await claimed(store)

    heir = await wait_until(inherited, "an expired lease")

    for write in (hold.renew(), hold.record({"answered": 99}, 1)):
        with pytest.raises(LeaseLost):
            await write
    await heir.record({"answered": 1}, 100)
    assert (await delivery.audit_of(batch))["answered"] == 1
    assert await claimed(store) is None


async def test_a_long_recount_is_done_in_pieces(
    delivery: Any, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("floopy_reconciler.core.recount._SLICE", 2)
    monkeypatch.setattr("floopy_reconciler.core.recount._SLICES", 2)
    batch = await delivery.plan(lines=20, segment_lines=2)
    await delivery.emitted(batch)
    await confirm_all(delivery, batch)
    auditor = delivery.auditor()

    await auditor.step()
    assert (await delivery.audit_of(batch))["recount"]["after"] == 3
    await balanced(delivery, auditor, batch, wait_until)


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


def paced(delivery: Any, hits: list[str], interval: float, longest: float) -> Auditor:
    """An auditor with real pauses that tells which steps it has passed."""
    audits = AuditStore(delivery.mongo, "paced", 60.0)
    return Auditor(
        audits=audits,
        recount=Recount(recounts=audits, reports=delivery.reports),
        offsets=delivery.offsets(),
        times=AuditTimes(interval, longest, 4 * longest, 1_000.0),
        emit_again=lambda: None,
        reports=delivery.reports,
        now=delivery.clock.now,
        hit=hits.append,
    )


async def due_in(delivery: Any, batch: dict[str, Any]) -> int:
    """Seconds until the batch's next audit."""
    gap: timedelta = (await delivery.audit_of(batch))["next_at"] - datetime.now(UTC)
    return round(gap.total_seconds() / 10) * 10


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
