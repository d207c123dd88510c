"""Sums up usage: of segments before their receipts, of a batch when every segment has one."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from floopy_common.domain.ids import rollup_id
from floopy_common.domain.segment import Sink
from floopy_common.events.usage import USAGE_RECORDED, UsageRecorded, usage_event
from floopy_metering.ports import (
    Document,
    Hit,
    Ledger,
    Plan,
    Plans,
    Receipts,
    Rollups,
    Segment,
    UsageBatches,
)

BY = "floopy-metering"


@dataclass(frozen=True, kw_only=True)
class UsagePorts:
    plans: Plans
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

    async def roll_up(self, segments: Sequence[Segment]) -> None:
        """Replace the usage of complete segments."""
        groups = await self._ports.ledger.groups(segments)
        await self._ports.rollups.replace_all(
            [_rollup(segment, found) for segment, found in zip(segments, groups, strict=True)]
        )
        self._hit("metering.after_rollup")

    async def record(
        self, planned: Mapping[str, int], confirmed: Mapping[str, int] | None = None
    ) -> list[Document]:
        """The usage of those of these batches of which every segment has a receipt, recorded with its event.

        `planned` has the segments of each batch, `confirmed` how many of them certainly have receipts.
        """
        whole = await self._whole(planned, confirmed or {})
        plans = await self._ports.plans.get_many(whole) if whole else {}
        recorded: list[Document] = []
        left: Collection[str] = sorted(plans)
        while left:
            # read before the rollups: a revision that is still the same when it is replaced has missed none
            stored = await self._ports.usage.get_many(left)
            figures = await self._ports.rollups.totals(left)
            same = [batch_id for batch_id in left if _says(stored.get(batch_id), figures[batch_id])]
            usage = [
                self._usage(batch_id, plans[batch_id], stored.get(batch_id), figures[batch_id])
                for batch_id in left
                if batch_id not in same
            ]
            faster = await self._write(usage)
            recorded += [stored[batch_id] for batch_id in same]
            recorded += [document for document in usage if document["_id"] not in faster]
            # they may not have seen all that is known by now
            left = sorted(faster)
        return recorded

    async def _whole(self, planned: Mapping[str, int], confirmed: Mapping[str, int]) -> list[str]:
        asked = [key for key, segments in planned.items() if confirmed.get(key, 0) < segments]
        if asked:
            confirmed = {**confirmed, **await self._ports.receipts.count(Sink.METERING, asked)}
        return [key for key, segments in planned.items() if confirmed.get(key, 0) >= segments]

    def _usage(
        self, batch_id: str, plan: Plan, stored: Document | None, figures: Mapping[str, int]
    ) -> Document:
        """The next revision, with its pending event."""
        recorded = UsageRecorded(
            batch_id=batch_id,
            org_id=plan.org_id,
            month=plan.month,
            revision=1 if stored is None else stored["revision"] + 1,
            **figures,
        )
        event_id, value = usage_event(recorded, self._now())
        pending = {"id": event_id, "topic": USAGE_RECORDED, "key": batch_id, "by": BY, "value": value}
        document: Document = {"_id": batch_id, **recorded.model_dump(exclude={"batch_id"})}
        return document | {"settled": stored is not None and stored["settled"], "outbox": [pending]}

    async def _write(self, usage: Sequence[Document]) -> set[str]:
        """Store new revisions; the batches of which another consumer was faster."""
        if not usage:
            return set()
        faster = await self._ports.usage.insert([one for one in usage if one["revision"] == 1])
        for one in usage:
            if one["revision"] > 1 and not await self._ports.usage.revise(one, one["outbox"][0]):
                faster.add(one["_id"])
        self._hit("metering.after_usage")
        self._announce()
        return faster


def _rollup(segment: Segment, groups: list[Document]) -> Document:
    no = segment.segment.no
    return {
        "_id": rollup_id(segment.batch_id, no),
        "batch_id": segment.batch_id,
        "org_id": segment.org_id,
        "segment": no,
        "lines": sum(group["lines"] for group in groups),
        "hours": sorted({group["hour"] for group in groups}),
        "groups": groups,
    }


def _says(usage: Document | None, figures: Mapping[str, int]) -> bool:
    return usage is not None and all(usage[name] == value for name, value in figures.items())
