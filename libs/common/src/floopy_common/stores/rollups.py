"""Rollups: the usage of one segment in one document, replaced whole and never incremented."""

from collections.abc import Collection, Mapping, Sequence

from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.stores.ledger import SUM_FIELDS


class RollupStore:
    """The collection `usage_rollups`."""

    def __init__(self, mongo: Mongo) -> None:
        self._rollups = mongo.collection("usage_rollups")

    async def replace_all(self, rollups: Sequence[Document]) -> None:
        """Store each segment's usage in the place of whatever was known of it."""
        await self._rollups.replace_each(rollups)

    async def totals(self, batch_ids: Collection[str]) -> Mapping[str, Mapping[str, int]]:
        """Every figure of each batch summed over its segments, 0 where nothing is known."""
        rows = await self._rollups.aggregate(
            [
                {"$match": {"batch_id": {"$in": sorted(batch_ids)}}},
                {"$unwind": "$groups"},
                {
                    "$group": {
                        "_id": "$batch_id",
                        **{name: {"$sum": f"$groups.{name}"} for name in SUM_FIELDS},
                    }
                },
            ]
        )
        found = {row["_id"]: row for row in rows}
        nothing = dict.fromkeys(SUM_FIELDS, 0)
        return {
            batch_id: {name: found.get(batch_id, nothing)[name] for name in SUM_FIELDS}
            for batch_id in batch_ids
        }
