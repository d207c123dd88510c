"""The audit against a real database and real brokers: numbers, healing, and when it had better wait."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from waiting import eventually

from floopy_common.domain.segment import Sink
from floopy_common.settings import KafkaSettings
from floopy_reconciler.ports import Offsets

from .auditing import balanced, commit_all, confirm_all, heal, make_due, steps


async def test_a_batch_is_balanced_when_every_sink_has_confirmed_every_line(delivery: Any) -> None:
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
    audit = await balanced(delivery, auditor, batch)

    assert [audit[n] for n in ("answered", "logged", "metered", "scored", "parked")] == [20, 20, 20, 20, 0]
    assert audit["stage"] == "balanced"
    assert await delivery.in_state(batch, "balanced")
    assert delivery.reports.seen.count("balanced") == 1


async def test_a_batch_is_not_balanced_before_it_has_ended(delivery: Any) -> None:
    batch = await delivery.plan(lines=4, segment_lines=4, status="finalizing")
    await delivery.emitted(batch)
    await confirm_all(delivery, batch)
    auditor = delivery.auditor()

    await steps(auditor)
    assert not (await delivery.audit_of(batch))["balanced"]

    await delivery.mongo.collection("batches").update_one(
        {"_id": batch["_id"]}, {"$set": {"status": "completed"}}
    )
    await balanced(delivery, auditor, batch)


async def test_what_a_sink_has_passed_without_a_receipt_is_emitted_again(delivery: Any) -> None:
    batch = await delivery.plan(lines=20, segment_lines=10)
    segments = await delivery.emitted(batch)
    await confirm_all(delivery, batch, sinks=(Sink.METERING, Sink.FEEDBACK))
    await delivery.confirm(segments[1])
    await commit_all(delivery, segments)
    auditor = delivery.auditor()

    await auditor.step()

    assert [segment["state"] for segment in await delivery.segments(batch)] == ["written", "balanced"]
    assert "sent again 1" in delivery.reports.seen
    await heal(delivery, batch, segments[0])
    await balanced(delivery, auditor, batch)


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
    delivery: Any, make_topic: Callable[[KafkaSettings], Awaitable[None]]
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

    await eventually(sent_again, timeout=20, what="the segment emitted again")


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


async def test_emissions_are_spaced_by_a_doubling_back_off(delivery: Any) -> None:
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
