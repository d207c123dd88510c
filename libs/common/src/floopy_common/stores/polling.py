"""Submitted shards as the reconciler sees them: due looks, downloads under a lease, and every way on."""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from floopy_common.chassis.lease import (
    LiveLease,
    claim_stage,
    death_stage,
    new_lease,
    no_deaths,
    release_stage,
    renewing,
)
from floopy_common.chassis.mongo import DatabaseError, Document, Mongo
from floopy_common.chassis.pipelines import FREE_LEASE, append, assign, due, expire_in
from floopy_common.domain.errors import LeaseLost
from floopy_common.domain.shard import (
    URGENT,
    AttemptPhase,
    ShardEnd,
    ShardState,
    WaitReason,
)

_log = logging.getLogger(__name__)

_WITH_PROVIDER = (ShardState.SUBMITTED, ShardState.CANCELLING, ShardState.DOWNLOADING)
"""States in which there is a provider batch to look at."""
_LOOKABLE: Document = {"$and": [due("poll.next_at"), due("poll.claimed_until"), FREE_LEASE]}
"""Due, and no look is under way: one that is asked for meanwhile comes right after it."""


def in_states(*states: ShardState) -> Document:
    return {"$in": [state.value for state in states]}


def _same_look(shard: Document) -> Document:
    """Matches the shard while nobody has begun another look; a look that came too late changes nothing."""
    return {
        "_id": shard["_id"],
        "provider_batch_id": shard["provider_batch_id"],
        "poll.started_at": shard["poll"]["started_at"],
    }


def _unclaimed(at: datetime) -> Document:
    """Matches a shard that nobody was looking at then, nor is now."""
    return {"$and": [{"poll.claimed_until": {"$not": {"$gt": at}}}, FREE_LEASE]}


class ShardHold:
    """A shard whose results this worker alone collects; every write is fenced by its lease."""

    def __init__(self, polls: "PollStore", shard: Document, live: LiveLease) -> None:
        self.shard = shard
        self._polls = polls
        self._live = live

    async def settle(self, archive: Document | None, ended: ShardEnd) -> None:
        """The shard has given all it will ever give."""
        await self._write(
            [
                assign(
                    {"state": ShardState.SETTLED.value, "archive": archive, "ended": ended.value},
                    now=["ended_at"],
                ),
            ]
        )

    async def download_again(self, delay: float) -> None:
        """What came was short; look again in `delay` seconds."""
        downloads = {"$add": [{"$ifNull": ["$downloads", 0]}, 1]}
        stage = assign(raw={"downloads": downloads, "poll.next_at": expire_in(delay)})
        await self._write([stage, no_deaths()])

    async def let_go(self, delay: float) -> None:
        """Nothing came of it through no fault of the results; look again in `delay` seconds."""
        await self._write([assign(raw={"poll.next_at": expire_in(delay)})])

    async def detach(self) -> None:
        """The provider batch is not ours: what became of our attempt is unknown again."""
        foreign = self.shard["provider_batch_id"]
        attempts = _last_attempt(self.shard, phase=AttemptPhase.UNKNOWN, resolution="foreign", looks=0)
        await self._write(
            [
                append("foreign", foreign),
                assign(
                    {
                        "state": ShardState.SUBMIT_UNKNOWN.value,
                        "attempts": attempts,
                        **_NO_PROVIDER_BATCH,
                    }
                ),
            ]
        )

    async def _write(self, stages: Sequence[Mapping[str, Any]]) -> None:
        """The hold's last write."""
        held = {"_id": self.shard["_id"], **self._live.held()}
        with self._live.letting_go():
            if not await self._polls.write(held, [*stages, release_stage()]):
                raise LeaseLost(self.shard["_id"])


_NO_PROVIDER_BATCH: Document = {
    "provider_batch_id": None,
    "provider_status": None,
    "provider_counts": None,
    "provider_files": None,
    "submitted_at": None,
    "downloads": 0,
}


def _last_attempt(shard: Document, *, phase: AttemptPhase, **changes: Any) -> list[Document]:
    """The attempts, the one that made the present provider batch changed."""
    changed = {"phase": phase.value, **changes}
    return [
        {**attempt, **changed} if attempt["provider_batch_id"] == shard["provider_batch_id"] else attempt
        for attempt in shard["attempts"]
    ]


class PollStore:
    """The collection `shards`, from the moment there is a provider batch until its results are kept."""

    def __init__(self, mongo: Mongo, owner: str, lease_ttl: float) -> None:
        self._shards = mongo.collection("shards")
        self._owner = owner
        self._ttl = lease_ttl

    async def due_looks(self, limit: int, without_accounts: Collection[str] = ()) -> list[Document]:
        """Shards to be looked at now, longest due first; of `without_accounts` only the urgent ones."""
        criteria: Document = {"state": in_states(*_WITH_PROVIDER), **_LOOKABLE}
        if not without_accounts:
            return await self._find_due(criteria, limit)
        urgent = await self._find_due({**criteria, "poll.next_at": URGENT}, limit)
        if len(urgent) == limit:
            return urgent
        # two walks, so that neither reads all that is due in the accounts left out
        others = {"poll.next_at": {"$gt": URGENT}, "account_id": {"$nin": list(without_accounts)}}
        return [*urgent, *await self._find_due({**criteria, **others}, limit - len(urgent))]

    async def _find_due(self, criteria: Document, limit: int) -> list[Document]:
        return await self._shards.find_all(criteria, sort=[("poll.next_at", 1)], limit=limit, durable=False)

    async def claim_look(self, shard_id: str, seconds: float) -> Document | None:
        """Take the next look for oneself for `seconds`; None when another worker was first."""
        return await self._shards.find_and_update(
            {"_id": shard_id, "state": in_states(*_WITH_PROVIDER), **_LOOKABLE},
            [assign(now=["poll.started_at"], raw={"poll.claimed_until": expire_in(seconds)})],
            durable=False,
        )

    @asynccontextmanager
    async def keeping(self, shard: Document, seconds: float) -> AsyncIterator[None]:
        """Keep a claimed look one's own while the body runs: to a crash it is lost for `seconds`."""
        claimed = {**_same_look(shard), "poll.claimed_until": {"$ne": None}}
        beat = asyncio.create_task(self._keep(claimed, seconds))
        try:
            yield
        except asyncio.CancelledError:
            await self._shards.update_one(claimed, {"$set": {"poll.claimed_until": None}}, durable=False)
            raise
        finally:
            beat.cancel()
            await asyncio.gather(beat, return_exceptions=True)

    async def _keep(self, claimed: Document, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds / 3)
            try:
                await self._shards.update_one(
                    claimed, [assign(raw={"poll.claimed_until": expire_in(seconds)})], durable=False
                )
            except DatabaseError as error:
                # at worst somebody else looks as well, and the later look counts
                _log.warning("look not kept", extra={"event": "look_not_kept", "error": str(error)})

    async def record_look(
        self,
        shard: Document,
        *,
        status: str,
        counts: Mapping[str, int],
        files: Mapping[str, str | None] | None,
        interval: float,
        answered: bool = True,
        began_at: datetime | None = None,
    ) -> Document | None:
        """Keep what a look showed; counts never fall. None when the shard has moved on meanwhile.

        A look answers those who asked before it began; who asked later gets another at once. With `answered`
        false it answers nobody yet: `answer_look` does, once the batch shows what was seen. `began_at` is for
        a look that nobody claimed: it counts only while nobody else looks, or has looked since then.
        """
        asked_since = {"$gte": [{"$ifNull": ["$poll.asked_at", None]}, "$poll.started_at"]}
        last_at = "$poll.started_at" if answered else {"$ifNull": ["$poll.last_at", None]}
        unclaimed = [] if began_at is None else [assign({"poll.started_at": began_at})]
        free = {} if began_at is None else _unclaimed(began_at)
        return await self._shards.find_and_update(
            {**_same_look(shard), "state": in_states(*_WITH_PROVIDER), **free},
            [
                *unclaimed,
                assign(
                    {
                        "provider_status": status,
                        "provider_files": files,
                        "provider_lost_at": None,
                        "poll.interval": interval,
                        "poll.failures": 0,
                        "poll.claimed_until": None,
                    },
                    raw={
                        "provider_counts": {
                            name: {"$max": [value, f"$provider_counts.{name}"]}
                            for name, value in counts.items()
                        },
                        "poll.last_at": last_at,
                        "poll.next_at": {"$cond": [asked_since, URGENT, expire_in(interval)]},
                    },
                ),
            ],
        )

    async def answer_look(self, shard: Document) -> None:
        """Tell those who asked before the look recorded in `shard` began that they may read the batch."""
        await self._shards.update_one(
            _same_look(shard),
            {"$set": {"poll.last_at": shard["poll"]["started_at"]}},
        )

    async def record_failure(self, shard: Document, delay: float, *, lost: bool = False) -> None:
        """Nothing was learnt; look again in `delay` seconds. `lost`: the provider denies knowing it."""
        raw: Document = {
            "poll.failures": {"$add": [{"$ifNull": ["$poll.failures", 0]}, 1]},
            "poll.next_at": expire_in(delay),
            "poll.claimed_until": None,
        }
        if lost:
            raw["provider_lost_at"] = {"$ifNull": ["$provider_lost_at", "$$NOW"]}
        await self._shards.update_one(_same_look(shard), [assign(raw=raw)])

    async def cancel_accepted(self, shard: Document) -> None:
        """The provider has taken the request to cancel."""
        await self._shards.update_one(
            {
                "_id": shard["_id"],
                "provider_batch_id": shard["provider_batch_id"],
                "state": ShardState.SUBMITTED.value,
            },
            [assign({"state": ShardState.CANCELLING.value})],
        )

    async def requeue(self, shard: Document, delay: float, refusals: int) -> bool:
        """The provider's queue was full after all: wait in line for another attempt."""
        waiting_since = {"$ifNull": ["$queued_since", "$$NOW"]}
        attempts = _last_attempt(shard, phase=AttemptPhase.NOT_ACCEPTED, resolution="queue_full")
        return await self._move(
            shard,
            [
                assign(
                    {
                        "state": ShardState.WAITING.value,
                        "attempts": attempts,
                        "queue_refusals": refusals,
                        "waiting.reason": WaitReason.QUEUE_FULL.value,
                        "waiting.backoff": delay,
                        **_NO_PROVIDER_BATCH,
                    },
                    raw={
                        "queued_since": waiting_since,
                        "waiting.since": waiting_since,
                        "waiting.next_attempt_at": expire_in(delay),
                    },
                )
            ],
        )

    async def refuse(self, shard: Document, refused: Document) -> bool:
        """The provider refused the whole input; nothing of it ran."""
        return await self._move(
            shard,
            [
                assign(
                    {
                        "state": ShardState.REFUSED.value,
                        "ended": ShardEnd.REFUSED.value,
                        "refused": refused,
                    },
                    now=["ended_at"],
                )
            ],
        )

    async def _move(self, shard: Document, stages: Sequence[Mapping[str, Any]]) -> bool:
        """Where no look has begun since the one that the shard is from."""
        return await self.write(
            {**_same_look(shard), "state": in_states(*_WITH_PROVIDER), **FREE_LEASE},
            stages,
        )

    @asynccontextmanager
    async def hold(self, shard: Document) -> AsyncIterator[ShardHold | None]:
        """Collect the shard's results under a lease; None when another worker does, or did since that look.

        Of looks at the same end one leads to a download: whatever comes of it, only a look that begins
        later leads to another. One that is under way ends without a trace.
        """
        lease = new_lease(self._owner, self._ttl)
        claimed = await self._shards.find_and_update(
            {
                "_id": shard["_id"],
                "provider_batch_id": shard["provider_batch_id"],
                "lease.attempt": (shard.get("lease") or {}).get("attempt"),
                "state": in_states(*_WITH_PROVIDER),
                **FREE_LEASE,
            },
            [
                assign(
                    {"state": ShardState.DOWNLOADING.value, "poll.claimed_until": None},
                    raw={"poll.started_at": expire_in(0.001)},  # later than that of any look under way
                ),
                death_stage(),
                claim_stage(lease, self._ttl),
            ],
            durable=False,
        )
        if claimed is None:
            yield None
            return
        async with renewing(self._shards, claimed["_id"], lease, self._ttl) as live:
            yield ShardHold(self, claimed, live)

    async def write(self, criteria: Mapping[str, Any], stages: Sequence[Mapping[str, Any]]) -> bool:
        return await self._shards.update_one(criteria, stages) == 1

    async def insert_retry(self, shard: Document) -> bool:
        """Insert a retry shard; False when it is there already."""
        return await self._shards.insert_new(shard)
