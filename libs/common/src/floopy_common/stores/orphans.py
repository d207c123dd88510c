"""What must not be: provider batches nobody wants, and attempts given up that may still leave one."""

from collections.abc import Collection
from datetime import timedelta

from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.chassis.pipelines import assign, due, expire_in
from floopy_common.domain.shard import AttemptPhase, ShardState
from floopy_common.stores.attempts import on_attempt

_AMBIGUOUS = {"$in": [AttemptPhase.CREATING.value, AttemptPhase.UNKNOWN.value]}


class SweepStore:
    """Attempts that were given up, each looked for until it cannot turn up any more."""

    def __init__(self, mongo: Mongo) -> None:
        self._shards = mongo.collection("shards")

    async def give_up_ended(self) -> bool:
        """Give up one attempt that was still unclear when its shard was ended; True when there was one."""
        shard = await self._shards.find_one(
            {"attempts.phase": _AMBIGUOUS, "state": ShardState.SETTLED.value}, {"attempts": 1}
        )
        if shard is None:
            return False
        unclear = [a["id"] for a in shard["attempts"] if a["phase"] in _AMBIGUOUS["$in"]]
        given_up = {"phase": AttemptPhase.ABANDONED.value, "resolution": "ended"}
        await self._shards.update_one(
            {"_id": shard["_id"], "state": ShardState.SETTLED.value},
            [*(on_attempt(attempt, given_up) for attempt in unclear), assign(now=["sweep.next_at"])],
        )
        return True

    async def next_due(self, without_accounts: Collection[str] = ()) -> Document | None:
        """The shard whose given-up attempts are to be looked for next."""
        criteria: Document = {"sweep.next_at": {"$exists": True}, **due("sweep.next_at")}
        if without_accounts:
            criteria["account_id"] = {"$nin": list(without_accounts)}
        return await self._shards.find_one(criteria, sort=[("sweep.next_at", 1)])

    async def claim(self, shard: Document, delay: float) -> Document | None:
        """Take this look for oneself, the next is `delay` seconds away; None when another worker was first.

        `sweep.began_at` is the server's clock before the look.
        """
        return await self._shards.find_and_update(
            {"_id": shard["_id"], "sweep.next_at": shard["sweep"]["next_at"]},
            [
                assign(
                    {"sweep.interval": delay}, now=["sweep.began_at"], raw={"sweep.next_at": expire_in(delay)}
                )
            ],
        )

    async def finish(self, shard: Document, sweep_for: float) -> None:
        """Stop looking, unless somebody was quicker or an attempt is younger than `sweep_for` seconds."""
        began = shard["sweep"]["began_at"]
        # an attempt may have waited long between its beginning and its create
        latest = max(attempt.get("creating_at") or attempt["intent_at"] for attempt in shard["attempts"])
        if latest + timedelta(seconds=sweep_for) > began:
            return
        await self._shards.update_one(
            {"_id": shard["_id"], "sweep.next_at": shard["sweep"]["next_at"]}, [assign({"sweep": None})]
        )


class OrphanStore:
    """The collection `orphan_provider_batches`: the row comes first, so that no crash forgets a cancel."""

    def __init__(self, mongo: Mongo) -> None:
        self._orphans = mongo.collection("orphan_provider_batches")
        self._shards = mongo.collection("shards")

    async def insert(self, shard: Document, attempt_id: str, provider_batch_id: str, reason: str) -> bool:
        """Note a provider batch that is to be cancelled; False when it was noted before.

        `lines_bound` bounds what it can cost: every line of the shard, once.
        """
        key = _key(shard["account_id"], provider_batch_id)
        row = {
            **{name: shard[name] for name in ("batch_id", "org_id", "provider", "account_id", "model")},
            "shard_id": shard["_id"],
            "attempt_id": attempt_id,
            "provider_batch_id": provider_batch_id,
            "reason": reason,
            "lines_bound": shard["lines"],
            "tokens_bound": shard.get("tokens_estimate"),
            "status": None,
            "counts": None,
            "failures": 0,
            "settled": False,
        }
        # matches no row that exists, so that only the first writer's clock and reason are kept
        new = {"_id": key, "settled": {"$exists": False}}
        return await self._orphans.upsert(new, [assign(row, now=["found_at", "next_at"])])

    async def known(self, account_id: str, provider_batch_ids: Collection[str]) -> set[str]:
        """Those of the provider batches that are orphans."""
        keys = [_key(account_id, name) for name in provider_batch_ids]
        rows = await self._orphans.find_all({"_id": {"$in": keys}}, {"provider_batch_id": 1})
        return {row["provider_batch_id"] for row in rows}

    async def wanted(self, account_id: str, provider_batch_id: str) -> bool:
        """Whether a shard counts on this provider batch."""
        found = await self._shards.find_one(
            {"account_id": account_id, "provider_batch_id": provider_batch_id}, {"_id": 1}
        )
        return found is not None

    async def claim_due(self, seconds: float) -> Document | None:
        """An orphan to be cancelled or looked at, nobody else's for `seconds`."""
        waiting: Document = {"settled": False, **due("next_at")}
        # looked for before anything is written: there is hardly ever one
        found = await self._orphans.find_all(
            waiting, {"_id": 1}, sort=[("next_at", 1)], limit=1, durable=False
        )
        for orphan in found:
            return await self._orphans.find_and_update(
                {"_id": orphan["_id"], **waiting}, [assign(raw={"next_at": expire_in(seconds)})]
            )
        return None

    async def seen(self, orphan: Document, status: str, counts: Document, delay: float | None) -> None:
        """Keep how the provider shows it; `delay` None: it has ended, these figures are final."""
        again = None if delay is None else expire_in(delay)
        await self._orphans.update_one(
            {"_id": orphan["_id"]},
            [
                assign(
                    {"status": status, "counts": counts, "settled": delay is None},
                    now=["seen_at"],
                    raw={"next_at": again},
                )
            ],
        )

    async def failed(self, orphan: Document, delay: float) -> None:
        """The provider did not answer; try again in `delay` seconds."""
        await self._orphans.update_one(
            {"_id": orphan["_id"]},
            [assign(raw={"failures": {"$add": ["$failures", 1]}, "next_at": expire_in(delay)})],
        )


def _key(account_id: str, provider_batch_id: str) -> str:
    return f"{account_id}:{provider_batch_id}"
