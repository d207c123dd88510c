"""What the audit reads and writes: receipts against segments, rows against receipts, numbers on the batch."""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from floopy_common.chassis.mongo import Document, Mongo, assign, expire_in
from floopy_common.domain.errors import LeaseLost
from floopy_common.domain.ids import line_id, new_lease_token, receipt_id, rollup_id
from floopy_common.domain.segment import WRITTEN_STATES, SegmentState, Sink

ROWS_OF: dict[Sink, str] = {
    Sink.METERING: "usage_ledger",
    Sink.LOGGING: "requests",
    Sink.FEEDBACK: "scores",
}
"""Where each sink keeps its row of a line."""

_LIVE_STAGES = ["open", "balanced"]
_WRITTEN = [state.value for state in WRITTEN_STATES]
_FREE = {
    "$or": [
        {"$eq": [{"$ifNull": ["$audit.lease.token", None]}, None]},
        {"$lte": ["$audit.lease.expires_at", "$$NOW"]},
    ]
}
_DUE = {"$lte": ["$audit.next_at", "$$NOW"]}


class AuditHold:
    """A batch that this auditor alone audits: its lease is `audit.lease`, apart from the batch's own."""

    def __init__(self, batches: "AuditStore", batch: Document, token: str, ttl: float) -> None:
        self.batch = batch
        self._batches = batches
        self._token = token
        self._ttl = ttl

    async def renew(self) -> None:
        """Raises LeaseLost when somebody else audits the batch by now."""
        await self._write([assign(raw={"audit.lease.expires_at": expire_in(self._ttl)})])

    async def record(self, fields: Mapping[str, Any], next_in: float | None) -> None:
        """Set fields of `audit` as absolute values; due again in `next_in` seconds (None: never)."""
        values: Document = {f"audit.{name}": value for name, value in fields.items()}
        values["audit.lease"] = None
        raw: Document = {}
        if next_in is None:
            values["audit.next_at"] = None
        else:
            raw["audit.next_at"] = expire_in(next_in)
        await self._write([assign(values, raw=raw)])

    async def _write(self, stages: list[Document]) -> None:
        # one that was closed meanwhile, because its batch failed, stays closed
        criteria = {
            "_id": self.batch["_id"],
            "audit.lease.token": self._token,
            "audit.stage": {"$in": _LIVE_STAGES},
        }
        if not await self._batches.write(criteria, stages):
            raise LeaseLost(self.batch["_id"])


class AuditStore:
    """Batches under audit, their segments and receipts."""

    def __init__(self, mongo: Mongo, owner: str, lease_ttl: float) -> None:
        self._batches = mongo.collection("batches")
        self._segments = mongo.collection("segments")
        self._receipts = mongo.collection("receipts")
        self._rollups = mongo.collection("usage_rollups")
        self._rows = {sink: mongo.collection(name) for sink, name in ROWS_OF.items()}
        self._owner = owner
        self._ttl = lease_ttl

    async def claim(self) -> AuditHold | None:
        """The batch longest due for an audit; None when none is due."""
        token = new_lease_token()
        lease = {"audit.lease.token": token, "audit.lease.owner": self._owner}
        batch = await self._batches.find_and_update(
            {"audit.stage": {"$in": _LIVE_STAGES}, "$expr": {"$and": [_DUE, _FREE]}},
            [assign(lease, raw={"audit.lease.expires_at": expire_in(self._ttl)})],
            sort=[("audit.next_at", 1)],
            durable=False,
        )
        return None if batch is None else AuditHold(self, batch, token, self._ttl)

    async def wake(self, batch_id: str, delay: float) -> None:
        """Something was written or emitted: the next audit is due in `delay` seconds at the latest."""
        await self._batches.update_one(
            {"_id": batch_id, "audit.stage": {"$in": _LIVE_STAGES}},
            [
                assign(
                    {"audit.pace": None},
                    raw={"audit.next_at": {"$min": ["$audit.next_at", expire_in(delay)]}},
                )
            ],
            durable=False,
        )

    async def write(self, criteria: Mapping[str, Any], stages: list[Document]) -> bool:
        return await self._batches.update_one(criteria, stages) == 1

    async def answered(self, batch_id: str, plan_id: str) -> int:
        """Lines of written segments."""
        rows = await self._segments.aggregate(
            [
                {"$match": {"batch_id": batch_id, "plan_id": plan_id, "state": {"$in": _WRITTEN}}},
                {"$group": {"_id": None, "lines": {"$sum": "$lines"}}},
            ]
        )
        return int(rows[0]["lines"]) if rows else 0

    async def confirmed(self, batch_id: str) -> tuple[dict[Sink, int], int]:
        """Lines confirmed by each sink's receipts, and how many of them all are parked."""
        rows = await self._receipts.aggregate(
            [
                {"$match": {"batch_id": batch_id}},
                {"$group": {"_id": "$sink", "lines": {"$sum": "$lines"}, "parked": {"$sum": "$parked"}}},
            ]
        )
        lines = {row["_id"]: row["lines"] for row in rows}
        return {sink: lines.get(sink.value, 0) for sink in Sink}, sum(row["parked"] for row in rows)

    async def emitted(self, batch_id: str, plan_id: str, after: int, limit: int) -> list[Document]:
        """Segments behind number `after` whose events are out and that are not known to be confirmed."""
        return await self._segments.find_all(
            {
                "batch_id": batch_id,
                "plan_id": plan_id,
                "no": {"$gt": after},
                "state": SegmentState.EMITTED.value,
            },
            {"no": 1, "lines": 1, "emitted": 1, "resends": 1},
            sort=[("no", 1)],
            limit=limit,
        )

    async def unconfirmed(self, batch_id: str, segments: Sequence[Document]) -> dict[int, set[Sink]]:
        """By number, the sinks without a whole receipt of the segment; none for a confirmed one."""
        wanted = {(s["no"], sink) for s in segments for sink in Sink}
        ids = [receipt_id(batch_id, no, sink.value) for no, sink in wanted]
        lines = {s["no"]: s["lines"] for s in segments}
        for receipt in await self._receipts.find_all({"_id": {"$in": ids}}, _OF_RECEIPTS):
            if receipt["lines"] == lines[receipt["segment"]]:
                wanted.discard((receipt["segment"], Sink(receipt["sink"])))
        missing: dict[int, set[Sink]] = {}
        for no, sink in wanted:
            missing.setdefault(no, set()).add(sink)
        return missing

    async def confirm(self, ids: Collection[str]) -> None:
        """Every sink has its receipt of these segments."""
        await self._segments.update_many(
            {"_id": {"$in": list(ids)}, "state": SegmentState.EMITTED.value},
            {"$set": {"state": SegmentState.BALANCED.value, "resends": 0}},
        )

    async def emit_again(self, segment: Document) -> bool:
        """Offer the segment to be emitted once more; False when that happened meanwhile."""
        matched = await self._segments.update_one(
            {
                "_id": segment["_id"],
                "state": SegmentState.EMITTED.value,
                "emitted.times": segment["emitted"]["times"],
            },
            {"$set": {"state": SegmentState.WRITTEN.value, "retry_at": None}, "$inc": {"resends": 1}},
        )
        return matched == 1

    async def reopen(self, batch_id: str, plan_id: str) -> int:
        """Confirmed segments of which a receipt is gone are unconfirmed again; how many."""
        scope = {"batch_id": batch_id, "plan_id": plan_id, "state": SegmentState.BALANCED.value}
        segments = await self._segments.find_all(scope, {"no": 1, "lines": 1})
        receipts = await self._receipts.find_all({"batch_id": batch_id}, _OF_RECEIPTS)
        held = {(r["segment"], r["sink"], r["lines"]) for r in receipts}
        gone = [s["no"] for s in segments if any((s["no"], k.value, s["lines"]) not in held for k in Sink)]
        if not gone:
            return 0
        return await self._reopen({**scope, "no": {"$in": gone}})

    async def void(self, batch_id: str, plan_id: str, no: int, sinks: Iterable[Sink]) -> None:
        """A sink's rows of the segment are not all there: what it confirmed counts no longer."""
        ids = [receipt_id(batch_id, no, sink.value) for sink in sinks]
        await self._receipts.delete_many({"_id": {"$in": ids}})
        await self._reopen({"batch_id": batch_id, "plan_id": plan_id, "no": no})

    async def _reopen(self, criteria: Mapping[str, Any]) -> int:
        return await self._segments.update_many(
            {**criteria, "state": SegmentState.BALANCED.value},
            {"$set": {"state": SegmentState.EMITTED.value}},
        )

    async def segments_behind(self, batch_id: str, plan_id: str, after: int, limit: int) -> list[Document]:
        """The next segments in line order behind number `after`."""
        return await self._segments.find_all(
            {"batch_id": batch_id, "plan_id": plan_id, "no": {"$gt": after}},
            {"no": 1, "lines": 1, "first_line": 1, "last_line": 1},
            sort=[("no", 1)],
            limit=limit,
        )

    async def short(self, batch_id: str, segment: Document) -> set[Sink]:
        """Sinks that do not hold a row for every line of the segment, or metering its rollup."""
        keys = {
            "_id": {
                "$gte": line_id(batch_id, segment["first_line"]),
                "$lte": line_id(batch_id, segment["last_line"]),
            }
        }
        counts = await asyncio.gather(*(self._rows[sink].count(keys) for sink in Sink))
        rollup = await self._rollups.find_one({"_id": rollup_id(batch_id, segment["no"])}, {"lines": 1})
        found = {sink for sink, rows in zip(Sink, counts, strict=True) if rows < segment["lines"]}
        summed = -1 if rollup is None else rollup["lines"]
        if summed != segment["lines"] and summed + await self._parked(batch_id, segment) != segment["lines"]:
            found.add(Sink.METERING)
        return found

    async def _parked(self, batch_id: str, segment: Document) -> int:
        """Ledger rows that say nothing of usage, which no rollup counts."""
        parked = {"status": "parked", "batch_id": batch_id, "segment": segment["no"]}
        return await self._rows[Sink.METERING].count(parked)


_OF_RECEIPTS = {"segment": 1, "sink": 1, "lines": 1}
