"""Batches on their way from `validating` to a plan: who plans one, what a plan leaves, and what goes again.

A batch carries `planning: {month}` from its first claim until nothing of a plan that lost can be left:
segments and shards of other plans, or a reservation of a batch that never got one. So what a crash leaves
at any moment is found and removed.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from floopy_common.chassis.lease import Lease, LiveLease, claim_stage, new_lease, renewing
from floopy_common.chassis.mongo import FREE_LEASE, Collection, Document, Mongo, assign
from floopy_common.domain.batch import BatchStatus
from floopy_common.domain.errors import LeaseLost
from floopy_common.domain.ids import new_plan_id
from floopy_common.stores.batches import BatchStore
from floopy_common.stores.caps import CapStore, month_of

_BY = "floopy-submitter"
_AT_ONCE = 1_000
"""Documents of one insert."""
_VALIDATING: Document = {"status": BatchStatus.VALIDATING.value}
_UNTIDY: Document = {"planning.month": {"$exists": True}}


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

    async def claim(self, after: str, now: datetime) -> PlanningClaim | None:
        """The longest waiting batch of the first organisation behind `after` that has one, then around.

        Organisations thus take turns, however many batches each of them sent.
        """
        first_month = {"$ifNull": ["$planning.month", {"$literal": month_of(now)}]}
        for turn in ({"$gt": after}, {"$lte": after}) if after else ({"$gt": ""},):
            lease = new_lease(self._owner, self.ttl)
            found = await self.batches.collection.find_and_update(
                {"org_id": turn, **_VALIDATING, **FREE_LEASE},
                [claim_stage(lease, self.ttl), assign(raw={"planning.month": first_month})],
                sort=[("org_id", 1), ("created_at", 1)],
            )
            if found is not None:
                return PlanningClaim(self, found, lease)
        return None

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


async def _insert(collection: Collection, documents: Sequence[Document]) -> None:
    """Ids follow from the plan's, so what an interrupted call has stored already is left as it is."""
    for start in range(0, len(documents), _AT_ONCE):
        await collection.insert_missing(documents[start : start + _AT_ONCE])
