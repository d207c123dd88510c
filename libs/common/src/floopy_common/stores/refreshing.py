"""Fresh looks on request: whoever reads a batch may pull the next look at its provider batches forward."""

from datetime import datetime

from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.chassis.pipelines import assign
from floopy_common.domain.shard import URGENT, ShardState

_LOOKED_AT = [ShardState.SUBMITTED.value, ShardState.CANCELLING.value]
"""A shard being downloaded has the provider's last word: no look at it could be fresher."""


class RefreshStore:
    """The collection `shards`, as far as a reader of a batch may hurry it."""

    def __init__(self, mongo: Mongo) -> None:
        self._shards = mongo.collection("shards")

    async def ask(self, batch_id: str, older_than: float) -> datetime | None:
        """Ask for a look at every shard whose last one is older than `older_than` seconds.

        Returns the moment of asking, by the server's clock; None when every look is fresh enough.
        Shards whose looks fail are left to their back-off.
        """
        before = {"$subtract": ["$$NOW", int(older_than * 1000)]}
        asked = await self._shards.update_many(
            {
                **_looked_at(batch_id),
                "poll.failures": {"$not": {"$gt": 0}},
                "$expr": {"$lte": [{"$ifNull": ["$poll.last_at", None]}, before]},
            },
            [assign({"poll.next_at": URGENT}, now=["poll.asked_at", "poll.due_at"])],
        )
        if asked == 0:
            return None
        last = await self._shards.find_one(
            _looked_at(batch_id), {"poll.asked_at": 1}, sort=[("poll.asked_at", -1)]
        )
        return None if last is None else last["poll"]["asked_at"]

    async def is_answered(self, batch_id: str, asked_at: datetime) -> bool:
        """Whether every shard asked at `asked_at` has been looked at since, or needs no look any more."""
        waiting = await self._shards.find_one(
            {
                **_looked_at(batch_id),
                "poll.failures": {"$not": {"$gt": 0}},
                "poll.asked_at": {"$gte": asked_at},
                "$expr": {"$lt": [{"$ifNull": ["$poll.last_at", None]}, {"$literal": asked_at}]},
            },
            {"_id": 1},
        )
        return waiting is None


def _looked_at(batch_id: str) -> Document:
    return {"batch_id": batch_id, "state": {"$in": _LOOKED_AT}}
