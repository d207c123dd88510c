"""Usage of whole batches with its pending event, and the reservations that wait to be settled."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.domain.batch import TERMINAL

_AT_ONCE = 1_000


class Planned(NamedTuple):
    """Whose usage a batch's is, and the month (`yyyymm`) it counts for."""

    org_id: str
    month: str


class PlannedStore:
    """What metering has to know of planned batches."""

    def __init__(self, mongo: Mongo) -> None:
        self._batches = mongo.collection("batches")

    async def get_many(self, batch_ids: Collection[str]) -> Mapping[str, Planned]:
        """Those of these batches that have a plan."""
        found = await self._batches.find_all(
            {"_id": {"$in": sorted(batch_ids)}}, {"org_id": 1, "plan.month": 1}
        )
        return {
            batch["_id"]: Planned(batch["org_id"], batch["plan"]["month"])
            for batch in found
            if batch.get("plan") is not None
        }


class UsageBatchStore:
    """The collection `usage_batches`; metering alone writes it."""

    def __init__(self, mongo: Mongo) -> None:
        self.collection = mongo.collection("usage_batches")

    async def get_many(self, batch_ids: Collection[str]) -> Mapping[str, Document]:
        """What is recorded of these batches, by batch."""
        found = await self.collection.find_all({"_id": {"$in": sorted(batch_ids)}})
        return {usage["_id"]: usage for usage in found}

    async def insert(self, usage: Sequence[Document]) -> set[str]:
        """Insert what is not there yet; the batches of which something is."""
        there = await self.collection.insert_missing(usage)
        return {usage[position]["_id"] for position in there}

    async def revise(self, usage: Document, pending: Document) -> bool:
        """Put new figures, with the event that tells of them, in the place of the revision before."""
        figures = {name: value for name, value in usage.items() if name not in {"_id", "settled", "outbox"}}
        matched = await self.collection.update_one(
            {"_id": usage["_id"], "revision": usage["revision"] - 1},
            {"$set": figures, "$push": {"outbox": pending}},
        )
        return matched == 1

    async def mark_settled(self, batch_ids: Collection[str]) -> None:
        await self.collection.update_many({"_id": {"$in": sorted(batch_ids)}}, {"$set": {"settled": True}})


class Reservation(NamedTuple):
    """Lines a batch that has ended still holds of its organisation's cap; `plan` may be None."""

    org_id: str
    month: str
    batch_id: str
    status: str
    segments: int | None


class ReservationStore:
    """Looks for reservations of batches that have ended: what no event and no delivery has settled."""

    def __init__(self, mongo: Mongo) -> None:
        self._caps = mongo.collection("caps")
        self._batches = mongo.collection("batches")

    async def ended(self) -> Sequence[Reservation]:
        """Reservations of ended batches; `segments` is None where the batch was never planned."""
        held: list[tuple[str, str, str]] = []
        for cap in await self._caps.find_all({"reserved": {"$gt": {}}}, {"reserved": 1}):
            org_id, _, month = cap["_id"].rpartition(":")
            held += [(batch_id, org_id, month) for batch_id in cap["reserved"]]
        held.sort()
        found: list[Reservation] = []
        for start in range(0, len(held), _AT_ONCE):
            found += await self._ended(held[start : start + _AT_ONCE])
        return found

    async def _ended(self, held: Sequence[tuple[str, str, str]]) -> list[Reservation]:
        wanted = sorted({batch_id for batch_id, _, _ in held})
        # by their ids alone: a server that chose the index on states would look through all that ever ended
        batches = await self._batches.find_all({"_id": {"$in": wanted}}, {"status": 1, "plan.segments": 1})
        ended = {batch["_id"]: batch for batch in batches if batch["status"] in TERMINAL}
        return [
            Reservation(org_id, month, batch_id, batch["status"], (batch.get("plan") or {}).get("segments"))
            for batch_id, org_id, month in held
            if (batch := ended.get(batch_id)) is not None
        ]
