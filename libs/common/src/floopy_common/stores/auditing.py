"""What the audit reads and writes: receipts against segments, rows against receipts, numbers on the batch."""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.chassis.pipelines import assign, expire_in
from floopy_common.domain.auditing import Pause, Standing
from floopy_common.domain.batch import TERMINAL, timestamp_field
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
_OF_BATCHES = dict.fromkeys(
    (
        "status",
        "created_at",
        *sorted(filter(None, map(timestamp_field, TERMINAL))),
        "plan.plan_id",
        "plan.total",
        "plan.segments",
        "audit",
    ),
    1,
)
_OF_RECEIPTS = {"segment": 1, "sink": 1, "lines": 1}
_COUNTED_TOGETHER = 64
"""Segments whose rows one call counts: enough to share what a call costs, few enough for one pipeline."""


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

    async def record(self, fields: Mapping[str, Any], next_in: float | Pause | None) -> None:
        """Set fields of `audit` as absolute values; due again in `next_in` seconds (None: never)."""
        values: Document = {f"audit.{name}": value for name, value in fields.items()}
        values["audit.lease"] = None
        raw: Document = {}
        if next_in is None:
            values["audit.next_at"] = None
        elif isinstance(next_in, Pause):
            raw = _paused(next_in)
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
    """Batches under audit, their segments and receipts.

    What is asked of several batches at once takes `plans`: the plan id of each, by batch id.
    """

    def __init__(self, mongo: Mongo, owner: str, lease_ttl: float) -> None:
        self._batches = mongo.collection("batches")
        self._segments = mongo.collection("segments")
        self._receipts = mongo.collection("receipts")
        self._rollups = mongo.collection("usage_rollups")
        self._ledger = mongo.collection(ROWS_OF[Sink.METERING])
        self._owner = owner
        self._ttl = lease_ttl

    async def due(self, limit: int) -> list[Document]:
        """The batches longest due that nobody audits, as far as an audit reads them."""
        return await self._batches.find_all(
            {"audit.stage": {"$in": _LIVE_STAGES}, "$expr": {"$and": [_DUE, _FREE]}},
            _OF_BATCHES,
            sort=[("audit.next_at", 1)],
            limit=limit,
            durable=False,
        )

    async def survey(self, plans: Mapping[str, str]) -> dict[str, Standing]:
        """How far each of the batches has come."""
        receipts, segments = await asyncio.gather(
            self._receipts.aggregate(_confirmed_of(plans)), self._segments.aggregate(_answered_of(plans))
        )
        confirmed: dict[str, dict[Sink, int]] = {}
        parked = dict.fromkeys(plans, 0)
        for row in receipts:
            lines = confirmed.setdefault(row["_id"]["batch"], dict.fromkeys(Sink, 0))
            lines[Sink(row["_id"]["sink"])] = row["lines"]
            parked[row["_id"]["batch"]] += row["parked"]
        written = {row["_id"]: row for row in segments}
        return {
            batch_id: Standing(
                answered=written.get(batch_id, {}).get("answered", 0),
                emitted=written.get(batch_id, {}).get("emitted", 0),
                confirmed=confirmed.get(batch_id, dict.fromkeys(Sink, 0)),
                parked=parked[batch_id],
                waiting_since=written.get(batch_id, {}).get("waiting_since"),
            )
            for batch_id in plans
        }

    async def put_off(self, batches: Sequence[Document], pause: Pause) -> None:
        """Leave batches that `due` gave alone for longer, but what somebody else has audited since."""
        await self._batches.update_many(_as_found(batches), [assign(raw=_paused(pause))])

    async def claim(self, batches: Sequence[Document]) -> list[AuditHold]:
        """Those batches that `due` gave and that nobody has audited since, to be audited by the caller."""
        token = new_lease_token()
        lease = {"audit.lease.token": token, "audit.lease.owner": self._owner}
        wanted = _as_found(batches)
        claimed = await self._batches.update_many(
            wanted, [assign(lease, raw={"audit.lease.expires_at": expire_in(self._ttl)})]
        )
        ours = {batch["_id"] for batch in batches}
        if claimed < len(ours):
            mine = {"_id": wanted["_id"], "audit.lease.token": token}
            ours = {batch["_id"] for batch in await self._batches.find_all(mine, {"_id": 1})}
        return [AuditHold(self, batch, token, self._ttl) for batch in batches if batch["_id"] in ours]

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

    async def emitted(self, plans: Mapping[str, str], after: int, limit: int) -> list[Document]:
        """Segments whose events are out and that are not known to be confirmed, in order.

        At most `limit`, of one batch those behind number `after`: a batch with more segments comes alone.
        """
        return await self._segments.find_all(
            {**_scope(plans), "no": {"$gt": after}, "state": SegmentState.EMITTED.value},
            {"batch_id": 1, "no": 1, "lines": 1, "emitted": 1, "resends": 1},
            sort=_IN_ORDER,
            limit=limit,
        )

    async def unconfirmed(self, segments: Sequence[Document]) -> dict[str, set[Sink]]:
        """By id, the sinks without a whole receipt of the segment; none for a confirmed one."""
        wanted = {
            receipt_id(segment["batch_id"], segment["no"], sink.value): (segment, sink)
            for segment in segments
            for sink in Sink
        }
        for receipt in await self._receipts.find_all({"_id": {"$in": list(wanted)}}, {"lines": 1}):
            if receipt["lines"] == wanted[receipt["_id"]][0]["lines"]:
                del wanted[receipt["_id"]]
        missing: dict[str, set[Sink]] = {}
        for segment, sink in wanted.values():
            missing.setdefault(segment["_id"], set()).add(sink)
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

    async def segments_behind(self, plans: Mapping[str, str], after: int, limit: int) -> list[Document]:
        """Segments in order, of one batch those behind number `after`; `limit` as for `emitted`."""
        return await self._segments.find_all(
            {**_scope(plans), "no": {"$gt": after}},
            {"batch_id": 1, "no": 1, "lines": 1, "first_line": 1, "last_line": 1},
            sort=_IN_ORDER,
            limit=limit,
        )

    async def short(self, segments: Sequence[Document]) -> dict[str, set[Sink]]:
        """By id, the sinks that do not hold a row for every line of a segment, or metering its rollup."""
        found: dict[str, set[Sink]] = {}
        for start in range(0, len(segments), _COUNTED_TOGETHER):
            together = segments[start : start + _COUNTED_TOGETHER]
            rows = await self._rollups.aggregate(_count_of(together))
            held = {row["_id"]: row["lines"] for row in rows}
            for segment in together:
                short = await self._short(segment, held)
                if short:
                    found[segment["_id"]] = short
        return found

    async def _short(self, segment: Document, held: Mapping[str, int]) -> set[Sink]:
        found = {sink for sink in Sink if held.get(_counted(segment, sink), 0) < segment["lines"]}
        summed = held.get(rollup_id(segment["batch_id"], segment["no"]), -1)
        if summed != segment["lines"] and summed + await self._parked(segment) != segment["lines"]:
            found.add(Sink.METERING)
        return found

    async def _parked(self, segment: Document) -> int:
        """Ledger rows that say nothing of usage, which no rollup counts."""
        parked = {"status": "parked", "batch_id": segment["batch_id"], "segment": segment["no"]}
        return await self._ledger.count(parked)


_IN_ORDER = [("batch_id", 1), ("plan_id", 1), ("no", 1)]


def _scope(plans: Mapping[str, str]) -> Document:
    # a plan belongs to one batch
    return {"batch_id": {"$in": list(plans)}, "plan_id": {"$in": list(plans.values())}}


def _as_found(batches: Sequence[Document]) -> Document:
    """Matches those of the batches that nobody audits or has audited since they were found due.

    Whoever has, has put the next time behind that moment, and they were all due by then.
    """
    latest = max((at for batch in batches if (at := batch["audit"].get("next_at"))), default=None)
    return {
        "_id": {"$in": [batch["_id"] for batch in batches]},
        "audit.stage": {"$in": _LIVE_STAGES},
        "$expr": {"$and": [{"$lte": ["$audit.next_at", latest]}, _FREE]},
    }


def _paused(pause: Pause) -> Document:
    """By the pace as it is at that moment: who has woken the audit meanwhile is not made to wait."""
    doubled = {"$multiply": [2, {"$ifNull": ["$audit.pace", pause.shortest / 2]}]}
    seconds = {"$max": [pause.shortest, {"$min": [doubled, pause.longest]}]}
    return {
        "audit.pace": seconds,
        "audit.next_at": {"$add": ["$$NOW", {"$multiply": [seconds, 1000]}]},
    }


def _confirmed_of(plans: Mapping[str, str]) -> list[Document]:
    """One row a batch and sink."""
    sums = {"lines": {"$sum": "$lines"}, "parked": {"$sum": "$parked"}}
    return [
        {"$match": {"batch_id": {"$in": list(plans)}, "sink": {"$in": [sink.value for sink in Sink]}}},
        {"$group": {"_id": {"batch": "$batch_id", "sink": "$sink"}, **sums}},
    ]


def _answered_of(plans: Mapping[str, str]) -> list[Document]:
    """One row a batch that has a written segment."""
    was_emitted = {"$gt": [{"$ifNull": ["$emitted.times", 0]}, 0]}
    waits = {"$eq": ["$state", SegmentState.EMITTED.value]}
    return [
        {"$match": {**_scope(plans), "state": {"$in": _WRITTEN}}},
        {
            "$group": {
                "_id": "$batch_id",
                "answered": {"$sum": "$lines"},
                "emitted": {"$sum": {"$cond": [was_emitted, "$lines", 0]}},
                "waiting_since": {"$min": {"$cond": [waits, "$emitted.at", None]}},
            }
        },
    ]


def _count_of(segments: Sequence[Document]) -> list[Document]:
    """{_id, lines} of each segment's rollup, and of each sink's rows of it under the name `_counted`.

    Each part is a count over one range of one index of keys: a group over all ranges together costs four
    times as much where segments are large, and one call a range four times as much where they are small.
    """
    rollups = [rollup_id(segment["batch_id"], segment["no"]) for segment in segments]
    return [
        {"$match": {"_id": {"$in": rollups}}},
        {"$project": {"lines": 1}},
        *(
            {"$unionWith": {"coll": rows, "pipeline": _rows_of(segment, sink)}}
            for sink, rows in ROWS_OF.items()
            for segment in segments
        ),
    ]


def _rows_of(segment: Document, sink: Sink) -> list[Document]:
    first, last = (line_id(segment["batch_id"], segment[name]) for name in ("first_line", "last_line"))
    counted = {"$literal": _counted(segment, sink)}
    return [
        {"$match": {"_id": {"$gte": first, "$lte": last}}},
        {"$group": {"_id": counted, "lines": {"$sum": 1}}},
    ]


def _counted(segment: Document, sink: Sink) -> str:
    return f"{sink.value}:{segment['_id']}"
