"""Batches on their way from `validating` to a plan: who plans one, what a plan leaves, and what goes again.

A batch carries `planning: {month}` from its first claim until nothing of a plan that lost can be left:
segments and shards of other plans, or a reservation of a batch that never got one. So what a crash leaves
at any moment is found and removed.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from floopy_common.chassis.lease import Lease, LiveLease, claim_stage, new_lease, renewing
from floopy_common.chassis.mongo import Collection, Document, Mongo
from floopy_common.chassis.pipelines import FREE_LEASE, assign
from floopy_common.domain.batch import BatchStatus
from floopy_common.domain.errors import LeaseLost
from floopy_common.domain.ids import new_plan_id
from floopy_common.stores.batches import BatchStore
from floopy_common.stores.caps import CapStore, month_of

_BY = "floopy-submitter"
_AT_ONCE = 1_000
"""Documents of one insert."""
_FEW = 4
"""Documents that are inserted one by one, which is what those of plans beside each other are merged by."""
_LOOK = 2_000
"""Waiting batches that one look goes through."""
_VALIDATING: Document = {"status": BatchStatus.VALIDATING.value}
_UNTIDY: Document = {"planning.month": {"$exists": True}}
_NEW: Document = {**_VALIDATING, "lease": None}
"""Waiting, and nobody has ever begun with it: while a batch is `validating`, no lease is given back."""
_LEFT: Document = {**_VALIDATING, **_UNTIDY, **FREE_LEASE}
"""Begun by somebody who died, or was stopped, before it had a plan."""


@dataclass(frozen=True)
class Queue:
    """Batches of one organisation that wait for their plans, oldest first."""

    org_id: str
    batch_ids: Sequence[str]


class PlanningHold:
    """A batch that this worker alone plans; after a lost lease the body is stopped with LeaseLost."""

    def __init__(self, store: "PlanningStore", claim: "PlanningClaim", live: LiveLease) -> None:
        self.batch = claim.batch
        self.plan_id = claim.plan_id
        self._store = store
        self._claim = claim
        self._live = live

    @property
    def month(self) -> str:
        """The month the batch's lines count for, whoever plans it: that of the first claim."""
        return str(self.batch["planning"]["month"])

    async def reserve(self, lines: int) -> bool:
        """Set the lines aside against the organisation's cap; False when they do not fit under it."""
        if self._live.seconds_left() <= 0:
            # the cap has no lease to filter on, and what is reserved after the batch was settled stays so
            raise LeaseLost(self.batch["_id"])
        cap = self.batch["context"]["monthly_line_cap"]
        return await self._store.caps.reserve(self.batch["org_id"], self.batch["_id"], lines, cap, self.month)

    async def insert_segments(self, segments: Sequence[Document]) -> None:
        await _insert(self._store.segments, segments)

    async def insert_shards(self, shards: Sequence[Document]) -> None:
        await _insert(self._store.shards, shards)

    async def planned(self, fields: Mapping[str, Any], now: datetime) -> bool:
        """Make the plan the batch's; False when the batch was cancelled or is another's meanwhile."""
        return await self._move(BatchStatus.IN_PROGRESS, fields, now, None)

    async def refused(self, fields: Mapping[str, Any], now: datetime) -> bool:
        """Fail the batch; False when it was cancelled or is another's meanwhile."""
        return await self._move(BatchStatus.FAILED, fields, now, "batch.failed")

    async def _move(
        self, to: BatchStatus, fields: Mapping[str, Any], now: datetime, event: str | None
    ) -> bool:
        tidy = {"planning": None} if self._claim.is_first else {}
        with self._live.letting_go():
            after = await self._store.batches.transition(
                self.batch,
                to,
                now=now,
                by=_BY,
                fields={**fields, "lease": None, **tidy},
                event=event,
                lease_token=self._live.token,
            )
        return after is not None


class PlanningClaim:
    """A batch just claimed for planning, as it was then; nobody renews its lease before `hold` is entered."""

    def __init__(self, store: "PlanningStore", batch: Document, lease: Lease) -> None:
        self.batch = batch
        self.plan_id = new_plan_id()
        self._store = store
        self._lease = lease

    @property
    def tries(self) -> int:
        """How often planning this batch was begun, this time included."""
        return int(self.batch["lease"]["attempt"])

    @property
    def is_first(self) -> bool:
        """Nobody has begun to plan it before, so nobody else's plan can have left anything."""
        return self.tries == 1

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[PlanningHold]:
        """Renews the lease while the body runs; LeaseLost stops the body."""
        store = self._store
        async with renewing(store.batches.collection, self.batch["_id"], self._lease, store.ttl) as live:
            yield PlanningHold(store, self, live)


class PlanningStore:
    """The collections `batches`, `segments`, `shards` and `caps`, as far as planning writes them."""

    def __init__(self, mongo: Mongo, owner: str, lease_ttl: float) -> None:
        self.batches = BatchStore(mongo)
        self.caps = CapStore(mongo)
        self.segments = mongo.collection("segments")
        self.shards = mongo.collection("shards")
        self.ttl = lease_ttl
        self._owner = owner

    async def waiting(self, after: str, most: int, *, bound: int, large: bool) -> list[Queue]:
        """Up to `most` batches of each organisation that nobody has begun to plan, from the first behind
        `after` and around; those whose input has more than `bound` bytes if `large`, else the others.

        Not of every organisation where `most` of them have any: the next look, behind the last, finds others.
        """
        queues: list[Queue] = []
        for first, last in ((after, None), ("", after)) if after else (("", None),):
            behind, more = first, True
            while more and len({queue.org_id for queue in queues}) < most:
                found, more = await self._look(
                    {"$gt": behind} | ({"$lte": last} if last else {}), most, bound, large
                )
                queues += found
                # an organisation that fills a look is not to hide those behind it
                behind = found[-1].org_id if found else behind
        return queues

    async def _look(self, orgs: Document, most: int, bound: int, large: bool) -> tuple[list[Queue], bool]:
        """The queues of some organisations, and whether there may be more of them."""
        rows = await self.batches.collection.aggregate(look(orgs, most, bound=bound, large=large))
        queues = [Queue(row["_id"], row["ids"]) for row in rows]
        return queues, sum(row["seen"] for row in rows) == _LOOK

    async def left_behind(self) -> Document | None:
        """The batch whose planner is gone that has waited longest for another: {org_id}; None without any."""
        return await self.batches.collection.find_one(
            _LEFT, {"org_id": 1}, sort=[("lease.expires_at", 1), ("_id", 1)]
        )

    async def claim(self, batch_id: str, now: datetime, *, left: bool = False) -> PlanningClaim | None:
        """Take the batch for planning; None when another worker did, or there is nothing to plan any more.

        `left`: from a planner that is gone, else only if nobody has begun with it.
        """
        first_month = {"$ifNull": ["$planning.month", {"$literal": month_of(now)}]}
        lease = new_lease(self._owner, self.ttl)
        found = await self.batches.collection.find_and_update(
            {"_id": batch_id, **(_LEFT if left else _NEW)},
            [claim_stage(lease, self.ttl), assign(raw={"planning.month": first_month})],
        )
        return None if found is None else PlanningClaim(self, found, lease)

    async def abandon(self, batch_id: str, plan_id: str) -> None:
        """Drop what a plan that lost its batch has written; nothing when it turns out to have won."""
        batch = await self.batches.get(batch_id)
        if batch is not None and (batch["plan"] or {}).get("plan_id") == plan_id:
            return
        for written in (self.shards, self.segments):
            await written.delete_many({"batch_id": batch_id, "plan_id": plan_id})
        if batch is not None:
            await self._tidy(batch)

    async def tidy(self, batch_id: str) -> None:
        """Remove what plans that lost have left of a batch that is not `validating` any more."""
        batch = await self.batches.collection.find_one({"_id": batch_id, **_UNTIDY})
        if batch is not None:
            await self._tidy(batch)

    async def tidy_next(self) -> bool:
        """Do that for one batch whose planner went before it could; False when there is none."""
        batch = await self.batches.collection.find_one(
            {**_UNTIDY, "status": {"$ne": BatchStatus.VALIDATING.value}, **FREE_LEASE}
        )
        if batch is not None:
            await self._tidy(batch)
        return batch is not None

    async def _tidy(self, batch: Document) -> None:
        """Only for a batch whose plan, or that it has none, is final: every other plan has lost for good."""
        planning = batch.get("planning")
        if batch["status"] == BatchStatus.VALIDATING.value or planning is None:
            return
        plan = batch["plan"]
        losers: Document = {"batch_id": batch["_id"]}
        if plan is not None:
            losers["plan_id"] = {"$ne": plan["plan_id"]}
        await self.shards.delete_many(losers)
        await self.segments.delete_many(losers)
        if plan is None:
            await self.caps.settle(batch["org_id"], batch["_id"], planning["month"], 0)
        await self.batches.mark(batch["_id"], _UNTIDY, {"planning": None})


def look(orgs: Document, most: int, *, bound: int, large: bool) -> list[Document]:
    """The pipeline for the queues of the organisations whose id meets `orgs`."""
    size: Document = {"$gt": bound}
    inputs = {"input.bytes": size if large else {"$not": size}}
    return [
        {"$match": {"org_id": orgs, **inputs, **_NEW}},
        {"$sort": {"org_id": 1, "created_at": 1}},
        {"$limit": _LOOK},
        {
            "$group": {
                "_id": "$org_id",
                "ids": {"$firstN": {"n": most, "input": "$_id"}},
                "seen": {"$sum": 1},
            }
        },
        {"$sort": {"_id": 1}},
    ]


async def _insert(collection: Collection, documents: Sequence[Document]) -> None:
    """Ids follow from the plan's, so what an interrupted call has stored already is left as it is."""
    if len(documents) <= _FEW:
        await asyncio.gather(*(collection.insert_new(document) for document in documents))
        return
    for start in range(0, len(documents), _AT_ONCE):
        await collection.insert_missing(documents[start : start + _AT_ONCE])
