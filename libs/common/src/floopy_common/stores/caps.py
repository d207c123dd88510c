"""Caps: how many lines an organisation has used and reserved in a calendar month."""

from datetime import UTC, datetime

from floopy_common.chassis.mongo import Document, Mongo


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
        await self._caps.insert_new({"_id": _key(org_id, month), "used": 0, "reserved": {}})
        return await self._try_reserve(org_id, batch_id, lines, cap, month)

    async def _try_reserve(self, org_id: str, batch_id: str, lines: int, cap: int | None, month: str) -> bool:
        held = _reservation(batch_id)
        fits = True if cap is None else {"$lte": [{"$add": [_COUNTED, lines]}, cap]}
        set_aside = {
            "$setField": {
                "field": {"$literal": batch_id},
                "input": "$reserved",
                "value": {"$ifNull": [held, {"$literal": lines}]},
            }
        }
        matched = await self._caps.update_one(
            {"_id": _key(org_id, month), "$expr": {"$or": [_present(held), fits]}},
            [{"$set": {"reserved": set_aside}}],
        )
        return matched == 1

    async def settle(self, org_id: str, batch_id: str, month: str, lines: int) -> bool:
        """Turn a batch's reservation into `lines` used (0 gives it back).

        False, and no change, when the batch holds none any more: a repeat is harmless.
        """
        left = {"$unsetField": {"field": {"$literal": batch_id}, "input": "$reserved"}}
        matched = await self._caps.update_one(
            {"_id": _key(org_id, month), "$expr": _present(_reservation(batch_id))},
            [{"$set": {"used": {"$add": ["$used", lines]}, "reserved": left}}],
        )
        return matched == 1

    async def used(self, org_id: str, month: str) -> int:
        """Lines that count against the cap: used and reserved."""
        found = await self._caps.find_one({"_id": _key(org_id, month)})
        return 0 if found is None else found["used"] + sum(found["reserved"].values())


_COUNTED: Document = {
    "$add": ["$used", {"$sum": {"$map": {"input": {"$objectToArray": "$reserved"}, "in": "$$this.v"}}}]
}


def _key(org_id: str, month: str) -> str:
    return f"{org_id}:{month}"


def _reservation(batch_id: str) -> Document:
    """The expression for a batch's reserved lines; its id is a name here, whatever characters it has."""
    return {"$getField": {"field": {"$literal": batch_id}, "input": "$reserved"}}


def _present(expression: Document) -> Document:
    return {"$ne": [{"$type": expression}, "missing"]}
