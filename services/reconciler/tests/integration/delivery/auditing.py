"""What happens around an audit: sinks confirm and go on, segments are emitted again, a batch comes due."""

from datetime import UTC, datetime, timedelta
from typing import Any

from waiting import eventually

from floopy_common.domain.segment import Sink
from floopy_common.stores.auditing import AuditStore
from floopy_reconciler.core.audit import Auditor, AuditTimes
from floopy_reconciler.core.recount import Recount


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


async def balanced(delivery: Any, auditor: Any, batch: dict[str, Any]) -> dict[str, Any]:
    async def stepped() -> Any:
        await auditor.step()
        audit = await delivery.audit_of(batch)
        return audit if audit["balanced"] else None

    return dict(await eventually(stepped, timeout=20, what="balance"))


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


async def heal(delivery: Any, batch: dict[str, Any], segment: dict[str, Any]) -> None:
    """Emit what is to be emitted again; the sinks then have it."""
    worker, no = delivery.worker(owner="healer"), segment["no"]

    async def stepped() -> bool:
        await worker.step()
        return bool((await delivery.segments(batch))[no]["emitted"]["times"] == 2)

    await eventually(stepped, timeout=20, what="another emission")
    await delivery.confirm(segment)


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
