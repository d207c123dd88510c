"""Usage of whole batches with its pending event, and the reservations that wait to be settled."""

from collections.abc import Sequence
from typing import NamedTuple

from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.domain.batch import TERMINAL

_AT_ONCE = 1_000


class UsageBatchStore:
    """The collection `usage_batches`; metering alone writes it."""

    def __init__(self, mongo: Mongo) -> None:
        self.collection = mongo.collection("usage_batches")

    async def get(self, batch_id: str) -> Document | None:
        return await self.collection.find_one({"_id": batch_id})

    async def insert(self, usage: Document) -> bool:
        """False when it is there already."""
        return await self.collection.insert_new(usage)

    async def revise(self, usage: Document, pending: Document) -> bool:
        """Put new figures, with the event that tells of them, in the place of the revision before."""
        figures = {name: value for name, value in usage.items() if name not in {"_id", "settled", "outbox"}}
        matched = await self.collection.update_one(
            {"_id": usage["_id"], "revision": usage["revision"] - 1},
            {"$set": figures, "$push": {"outbox": pending}},
        )
        return matched == 1

    async def mark_settled(self, batch_id: str) -> None:
        await self.collection.update_one({"_id": batch_id}, {"$set": {"settled": True}})


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
        found: list[Reservation] = []
        for cap in await self._caps.find_all({"reserved": {"$gt": {}}}, {"reserved": 1}):
            org_id, _, month = cap["_id"].rpartition(":")
            held = sorted(cap["reserved"])
            for start in range(0, len(held), _AT_ONCE):
                found += await self._ended(org_id, month, held[start : start + _AT_ONCE])
        return found

    async def _ended(self, org_id: str, month: str, held: Sequence[str]) -> list[Reservation]:
        batches = await self._batches.find_all(
            {"_id": {"$in": held}, "status": {"$in": [status.value for status in TERMINAL]}},
            {"status": 1, "plan.segments": 1},
        )
        return [
            Reservation(
                org_id, month, batch["_id"], batch["status"], (batch.get("plan") or {}).get("segments")
            )
            for batch in batches
        ]
