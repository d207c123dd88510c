"""Rollups: the usage of one segment in one document, replaced whole and never incremented."""

from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.stores.ledger import SUM_FIELDS


class RollupStore:
    """The collection `usage_rollups`."""

    def __init__(self, mongo: Mongo) -> None:
        self._rollups = mongo.collection("usage_rollups")

    async def replace(self, rollup: Document) -> None:
        """Store the segment's usage in the place of whatever was known of it."""
        await self._rollups.replace({"_id": rollup["_id"]}, rollup, upsert=True)

    async def totals(self, batch_id: str) -> dict[str, int]:
        """Every figure summed over the batch's segments."""
        rows = await self._rollups.aggregate(
            [
                {"$match": {"batch_id": batch_id}},
                {"$unwind": "$groups"},
                {"$group": {"_id": None, **{name: {"$sum": f"$groups.{name}"} for name in SUM_FIELDS}}},
            ]
        )
        return {name: rows[0][name] if rows else 0 for name in SUM_FIELDS}
