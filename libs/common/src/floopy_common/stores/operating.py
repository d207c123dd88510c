"""Shards that wait for a person: nobody knows what became of several tries, so no machine starts another."""

from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.chassis.pipelines import FREE_LEASE, assign
from floopy_common.domain.shard import ShardEnd, ShardState, WaitReason
from floopy_common.stores.finishing import TurnStore

_HELD: Document = {"state": ShardState.WAITING.value, "waiting.reason": WaitReason.OPERATOR.value}
_GIVEN_UP: Document = {
    "code": "submission_given_up",
    "message": (
        "This request could not be handed to the provider: what became of several tries is unknown, "
        "and the operator decided against another."
    ),
    "errors": [],
}
_UNCLAIMED_BEFORE = {
    "$cond": [
        {"$eq": [{"$ifNull": ["$lease", None]}, None]},
        None,
        {"$mergeObjects": ["$lease", {"attempt": 0}]},
    ]
}
_ATTEMPTS = ("attempts.id", "attempts.phase", "attempts.creating_at")
_SHOWN = dict.fromkeys(
    ("batch_id", "org_id", "provider", "account_id", "model", "lines", "waiting.since", *_ATTEMPTS), 1
)


class OperatorStore:
    """What a person may decide of a shard; a decision counts only while the shard waits for one."""

    def __init__(self, mongo: Mongo) -> None:
        self._shards = mongo.collection("shards")
        self._turns = TurnStore(mongo)

    async def held(self, batch_id: str | None = None) -> list[Document]:
        """Shards that wait for a person, longest first."""
        criteria = _HELD if batch_id is None else {**_HELD, "batch_id": batch_id}
        return await self._shards.find_all(criteria, _SHOWN, sort=[("waiting.since", 1), ("_id", 1)])

    async def resume(self, shard_id: str) -> bool:
        """Let it be tried once more, in its old place in line; False when it does not wait."""
        return await self._decide(
            shard_id,
            assign(
                {"state": ShardState.PLANNED.value, "waiting": None, "submit_at": None},
                raw={"lease": _UNCLAIMED_BEFORE},
            ),
        )

    async def give_up(self, shard_id: str) -> bool:
        """End it: its lines go to the error file. False when it does not wait.

        A provider batch of it that turns up later is cancelled, as after any try that was given up.
        """
        # not `refused`: nobody knows that nothing of it ran, so its batch must not fail as if nothing had
        ended = {
            "state": ShardState.SETTLED.value,
            "ended": ShardEnd.REFUSED.value,
            "refused": _GIVEN_UP,
            "waiting": None,
        }
        return await self._decide(shard_id, assign(ended, now=["ended_at"]))

    async def _decide(self, shard_id: str, change: Document) -> bool:
        decided = await self._shards.find_and_update(
            {"_id": shard_id, **_HELD, **FREE_LEASE}, [change], projection={"batch_id": 1}
        )
        if decided is None:
            return False
        await self._turns.nudge(decided["batch_id"])
        return True
