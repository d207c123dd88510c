"""Scores: one row per line, keyed by the line id."""

from collections.abc import Collection

from floopy_common.chassis.mongo import Document, Mongo


class ScoreStore:
    """The collection `scores`."""

    def __init__(self, mongo: Mongo) -> None:
        self.collection = mongo.collection("scores")

    async def rows(self, line_ids: Collection[str]) -> list[Document]:
        """The rows of these lines that are there, in line order."""
        if not line_ids:
            return []
        wanted = set(line_ids)
        span = {"_id": {"$gte": min(wanted), "$lte": max(wanted)}}
        # a run of lines is one range of keys, which is several times faster to read than as many look-ups
        return [
            row
            async for row in self.collection.find(span, sort=[("_id", 1)], batch_size=len(wanted))
            if row["_id"] in wanted
        ]
