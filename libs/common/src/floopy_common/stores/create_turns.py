"""Whose turn it is to create on an account whose provider batches do not show who made them."""

import time
from datetime import UTC, datetime

from floopy_common.chassis.mongo import Collection, Document, Mongo
from floopy_common.chassis.pipelines import assign, due, expire_in
from floopy_common.domain.ids import new_lease_token
from floopy_common.domain.shard import AttemptPhase

_MAY_HAVE_LEFT_ONE: tuple[Document, ...] = (
    {"attempts.phase": {"$in": [AttemptPhase.CREATING.value, AttemptPhase.UNKNOWN.value]}},
    {"sweep.next_at": {"$exists": True}},
)
"""Unclear, or given up, perhaps long before the settle window because its batch ended; each has its index."""
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class Turn:
    """One's own until `deadline`, by this process's monotonic clock, or until it is given back."""

    def __init__(self, turns: Collection, account_id: str, token: str, deadline: float) -> None:
        self._turns = turns
        self._account_id = account_id
        self._token = token
        self._deadline = deadline

    def seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    async def give_back(self) -> None:
        """The next may create at once; when that fails, as soon as the turn runs out."""
        mine = {"_id": self._account_id, "token": self._token}
        await self._turns.update_one(mine, {"$set": {"token": None, "until": _LONG_AGO}})


class CreateTurnStore:
    """The collection `create_turns`, one row an account; and of `shards`, what is not clear yet."""

    def __init__(self, mongo: Mongo) -> None:
        self._turns = mongo.collection("create_turns")
        self._shards = mongo.collection("shards")

    async def take(self, shard: Document, seconds: float, quiet_for: float) -> Turn | None:
        """The turn for the shard's account, for `seconds`.

        None while another has it, or a create of the last `quiet_for` seconds may have left a provider batch
        that nobody knows of: two of them could not be told apart.
        """
        account_id, token = shard["account_id"], new_lease_token()
        await self._turns.insert_new({"_id": account_id, "token": None, "until": _LONG_AGO})
        turn = Turn(self._turns, account_id, token, time.monotonic() + seconds)
        taken = await self._turns.find_and_update(
            {"_id": account_id, **due("until")},
            [assign({"token": token, "shard_id": shard["_id"]}, raw={"until": expire_in(seconds)})],
        )
        if taken is None:
            return None
        if await self._is_unclear(shard, quiet_for):
            await turn.give_back()
            return None
        return turn

    async def _is_unclear(self, shard: Document, quiet_for: float) -> bool:
        """Looked at only with the turn in hand: whoever had it before has left word in its shard."""
        since = {"$subtract": ["$$NOW", int(quiet_for * 1000)]}
        lately: Document = {
            "account_id": shard["account_id"],
            "_id": {"$ne": shard["_id"]},
            "$expr": {"$gt": [{"$max": "$attempts.creating_at"}, since]},
        }
        for unclear in _MAY_HAVE_LEFT_ONE:
            if await self._shards.find_one({**lately, **unclear}, {"_id": 1}) is not None:
                return True
        return False
