"""The shards of a batch that is wound up: what has not ended is settled, or cancelled at its provider."""

from floopy_common.chassis.lease import release_stage
from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.chassis.pipelines import FREE_LEASE, assign
from floopy_common.domain.shard import ADOPTED_UNPROVEN, URGENT, ShardEnd, ShardState
from floopy_common.providers.port import TERMINAL_PROVIDER_STATUS
from floopy_common.stores.polling import in_states

_WAITS_FOR_ROOM: Document = {
    "state": in_states(ShardState.SUBMITTED, ShardState.CANCELLING),
    "provider_status": {"$in": sorted(status.value for status in TERMINAL_PROVIDER_STATUS)},
    "poll.failures": {"$not": {"$gt": 0}},
}
"""Ended at a provider that can still be asked, and not yet collected: once tried it is `downloading`."""


class EndingStore:
    """The shards of one batch while it is being wound up."""

    def __init__(self, mongo: Mongo) -> None:
        self._shards = mongo.collection("shards")

    async def all_of(self, batch_id: str, plan_id: str) -> list[Document]:
        """Every shard of the plan without its bulky fields, in order."""
        return await self._shards.find_all(
            {"batch_id": batch_id, "plan_id": plan_id},
            {"ranges": 0, "archive": 0, "outbox": 0},
            sort=[("no", 1), ("depth", 1)],
        )

    async def unsettled_segments(self, batch_id: str, plan_id: str) -> set[int]:
        """Numbers of the segments that some shard still owes lines to."""
        terminal = [ShardState.SETTLED.value, ShardState.REFUSED.value]
        rows = await self._shards.find_all(
            {"batch_id": batch_id, "plan_id": plan_id, "state": {"$nin": terminal}}, {"segments": 1}
        )
        return {number for row in rows for number in row["segments"]}

    async def end_unsubmitted(self, batch_id: str, plan_id: str, ended: ShardEnd) -> int:
        """Settle what no provider has seen; how many that were."""
        return await self._shards.update_many(
            {
                "batch_id": batch_id,
                "plan_id": plan_id,
                "state": in_states(ShardState.PLANNED, ShardState.WAITING),
            },
            [
                assign(
                    {"state": ShardState.SETTLED.value, "ended": ended.value, "waiting": None},
                    now=["ended_at"],
                )
            ],
        )

    async def ask_cancel(self, batch_id: str, plan_id: str) -> int:
        """Have the provider batches cancelled: the next look at each does it, and is due now.

        One that may be somebody else's is left alone: only its results will say whose it is.
        """
        return await self._shards.update_many(
            {
                "batch_id": batch_id,
                "plan_id": plan_id,
                "state": ShardState.SUBMITTED.value,
                "cancel_asked_at": None,
                "attempts.resolution": {"$ne": ADOPTED_UNPROVEN},
            },
            [assign({"poll.next_at": URGENT}, now=["cancel_asked_at", "poll.due_at"])],
        )

    async def end_overdue(self, batch_id: str, plan_id: str, ended: ShardEnd) -> int:
        """Settle what has not ended in its time of grace; whoever works on it loses its lease.

        Only what has the provider's last word goes on: a download under way, and one that waits for room.
        """
        lost = {"$ne": [{"$ifNull": ["$provider_lost_at", None]}, None]}
        final: object = ended.value
        if ended is ShardEnd.EXPIRED:
            final = {"$cond": [lost, ShardEnd.LOST.value, ended.value]}
        return await self._shards.update_many(
            {
                "batch_id": batch_id,
                "plan_id": plan_id,
                "$or": [
                    {
                        "state": in_states(
                            ShardState.SUBMITTING,
                            ShardState.SUBMIT_UNKNOWN,
                            ShardState.SUBMITTED,
                            ShardState.CANCELLING,
                        ),
                        "$nor": [_WAITS_FOR_ROOM],
                    },
                    {"state": ShardState.DOWNLOADING.value, **FREE_LEASE},
                ],
            },
            [
                assign({"state": ShardState.SETTLED.value}, now=["ended_at"], raw={"ended": final}),
                release_stage(),
            ],
        )
