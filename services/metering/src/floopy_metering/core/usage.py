"""Sums up usage: of a segment before its receipt, of a batch when every segment has one."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from floopy_common.domain.ids import rollup_id
from floopy_common.domain.segment import Sink
from floopy_common.events.usage import USAGE_RECORDED, UsageRecorded, usage_event
from floopy_metering.ports import (
    Batches,
    Document,
    Hit,
    Ledger,
    Receipts,
    Rollups,
    Segment,
    UsageBatches,
)

BY = "floopy-metering"


@dataclass(frozen=True, kw_only=True)
class UsagePorts:
    batches: Batches
    ledger: Ledger
    rollups: Rollups
    receipts: Receipts
    usage: UsageBatches


class Accountant:
    """Every step computes absolute figures from what is stored, so repeating it changes nothing."""

    def __init__(
        self, ports: UsagePorts, *, now: Callable[[], datetime], announce: Callable[[], None], hit: Hit
    ) -> None:
        self._ports = ports
        self._now = now
        self._announce = announce
        self._hit = hit

    async def roll_up(self, segment: Segment) -> None:
        """Replace the usage of a complete segment."""
        where = segment.segment
        groups = await self._ports.ledger.groups(segment.batch_id, where.first_line, where.last_line)
        await self._ports.rollups.replace(
            {
                "_id": rollup_id(segment.batch_id, where.no),
                "batch_id": segment.batch_id,
                "org_id": segment.org_id,
                "segment": where.no,
                "lines": sum(group["lines"] for group in groups),
                "hours": sorted({group["hour"] for group in groups}),
                "groups": groups,
            }
        )
        self._hit("metering.after_rollup")

    async def record(self, batch_id: str, segments: int) -> Document | None:
        """The batch's usage, recorded with its event, once all `segments` have receipts; None before."""
        if await self._ports.receipts.count(Sink.METERING, batch_id) < segments:
            return None
        batch = await self._ports.batches.get(batch_id)
        if batch is None or batch["plan"] is None:
            return None
        while True:
            # read before the rollups: a revision that is still the same when it is replaced has missed none
            stored = await self._ports.usage.get(batch_id)
            figures = await self._ports.rollups.totals(batch_id)
            if stored is not None and all(stored[name] == value for name, value in figures.items()):
                return stored
            recorded = UsageRecorded(
                batch_id=batch_id,
                org_id=batch["org_id"],
                month=batch["plan"]["month"],
                revision=1 if stored is None else stored["revision"] + 1,
                **figures,
            )
            written = await self._write(recorded, settled=stored is not None and stored["settled"])
            if written is not None:
                return written

    async def _write(self, recorded: UsageRecorded, *, settled: bool) -> Document | None:
        """None when another consumer was faster: it may not have seen all that is known by now."""
        event_id, value = usage_event(recorded, self._now())
        pending = {
            "id": event_id,
            "topic": USAGE_RECORDED,
            "key": recorded.batch_id,
            "by": BY,
            "value": value,
        }
        document: Document = {"_id": recorded.batch_id, **recorded.model_dump(exclude={"batch_id"})}
        document |= {"settled": settled, "outbox": [pending]}
        if recorded.revision == 1:
            written = await self._ports.usage.insert(document)
        else:
            written = await self._ports.usage.revise(document, pending)
        self._hit("metering.after_usage")
        self._announce()
        return document if written else None
