"""Caps: how many lines an organisation has used and reserved in a calendar month."""

from collections.abc import Sequence
from datetime import UTC, datetime

from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.domain.settled import Settled


def month_of(at: datetime) -> str:
    """The month a moment counts for, `yyyymm` in UTC."""
    return at.astimezone(UTC).strftime("%Y%m")


class CapStore:
    """The collection `caps`: one document per organisation and month, changed only by conditional updates."""

    def __init__(self, mongo: Mongo) -> None:
        self._caps = mongo.collection("caps")

    async def reserve(self, org_id: str, batch_id: str, lines: int, cap: int | None, month: str) -> bool:
        """Set `lines` aside for a batch if they fit under `cap` (None: no cap).

        Reserving again for a batch that holds a reservation is True and changes nothing.
        """
        if await self._try_reserve(org_id, batch_id, lines, cap, month):
            return True
        # A filter with an expression cannot upsert, so the month's first reservation creates the document.
        await self._caps.insert_new({"_id": _key(org_id, month), "used": 0, "held": 0, "reserved": {}})
        return await self._try_reserve(org_id, batch_id, lines, cap, month)

    async def _try_reserve(self, org_id: str, batch_id: str, lines: int, cap: int | None, month: str) -> bool:
        entry = _entry(batch_id)
        month_of_org: Document = {"_id": _key(org_id, month)}
        fits: Document = {} if cap is None else {"$expr": {"$lte": [{"$add": [*_COUNTED, lines]}, cap]}}
        matched = await self._caps.update_one(
            {**month_of_org, entry: {"$exists": False}, **fits},
            {"$set": {entry: lines}, "$inc": {"held": lines}},
        )
        return matched == 1 or await self._reserved(month_of_org, entry) is not None

    async def _reserved(self, month_of_org: Document, entry: str) -> int | None:
        found = await self._caps.find_one({**month_of_org, entry: {"$exists": True}}, {entry: 1})
        return None if found is None else next(iter(found["reserved"].values()))

    async def settle(self, org_id: str, batch_id: str, month: str, lines: int) -> None:
        """Turn a batch's reservation into `lines` used (0 gives it back)."""
        await self.settle_all([Settled(org_id, batch_id, month, lines)])

    async def settle_all(self, settled: Sequence[Settled]) -> None:
        """The same for many; what holds no reservation any more is left as it is: a repeat is harmless."""
        await self._caps.update_each([(_holding(one), _used_instead(one)) for one in settled])

    async def used(self, org_id: str, month: str) -> int:
        """Lines that count against the cap: used and reserved."""
        found = await self._caps.find_one({"_id": _key(org_id, month)}, {"used": 1, "held": 1})
        return 0 if found is None else found["used"] + found["held"]


_COUNTED = ("$used", "$held")
"""The sum of what is reserved is kept, because adding it up anew costs every batch a look at every other."""


def _key(org_id: str, month: str) -> str:
    return f"{org_id}:{month}"


def _holding(one: Settled) -> Document:
    return {"_id": _key(one.org_id, one.month), _entry(one.batch_id): {"$exists": True}}


def _used_instead(one: Settled) -> list[Document]:
    """One update: what is held is read and given back by the same write, so no other comes between."""
    entry = _entry(one.batch_id)
    counted: Document = {
        "held": {"$subtract": ["$held", f"${entry}"]},
        "used": {"$add": ["$used", one.lines]},
    }
    return [{"$set": counted}, {"$unset": entry}]


def _entry(batch_id: str) -> str:
    """Where a batch's reserved lines are; ids of batches have no dots."""
    return f"reserved.{batch_id}"
