"""Shards on their way to the provider: one conditional write for each step of submitting one."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from floopy_common.chassis.lease import (
    Lease,
    LiveLease,
    claim_stage,
    death_stage,
    new_lease,
    no_deaths,
    release_stage,
    renewing,
)
from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.chassis.pipelines import append, assign, expire_in
from floopy_common.domain.batch import BatchStatus
from floopy_common.domain.errors import LeaseLost
from floopy_common.domain.shard import AttemptPhase, ShardEnd, ShardState, WaitReason
from floopy_common.stores.attempts import intend_stage, on_attempt
from floopy_common.stores.due_shards import (
    LETHAL,
    LETHAL_ORDER,
    LOOK_ORDER,
    SHOWN,
    SUBMITTABLE,
    UNCLEAR,
    except_for,
    looks,
)


class SubmitHold:
    """A shard that this worker alone submits; `shard` is as its last write left it.

    Every write filters on the lease's token and raises LeaseLost when it matches nothing. Of what a fence or
    a record has written, `shard` shows the states alone.
    """

    def __init__(self, store: "SubmitStore", shard: Document, live: LiveLease) -> None:
        self.shard = shard
        self._store = store
        self._live = live
        self._unsaid: list[Document] = []

    @property
    def attempt(self) -> Document | None:
        """The newest attempt."""
        return self.shard["attempts"][-1] if self.shard["attempts"] else None

    @property
    def lost(self) -> bool:
        """Somebody else may own the shard."""
        return self._live.lost

    def seconds_left(self) -> float:
        """Seconds in which nobody else can own the shard."""
        return self._live.seconds_left()

    def prepared(self, input_file_id: str | None) -> None:
        """The input is at the provider, which the next write says along with what it says itself."""
        changes = {"phase": AttemptPhase.PREPARED.value, "input_file_id": input_file_id}
        self._unsaid = [on_attempt(self._last()["id"], changes)]
        self._knows(attempt=changes)

    async def extend(self, seconds: float) -> None:
        """Keep the shard for at least `seconds` from now."""
        await self._live.extend(seconds)

    async def fence(self, seconds: float) -> None:
        """From here on a provider batch may exist; the shard is kept for at least `seconds` from now."""
        fenced = self._on_last(AttemptPhase.CREATING, {}, now=["creating_at"])
        async with self._live.extending(seconds) as stage:
            await self._put([fenced, stage])
        self._knows(attempt={"phase": AttemptPhase.CREATING.value})

    async def unfence(self) -> None:
        """The call was certainly not made: the attempt is where it was before the fence, free for anybody."""
        await self._outlive([self._on_last(AttemptPhase.PREPARED, {})])

    async def recorded(
        self, provider_batch_id: str, pending: Document, interval: float, resolution: str | None
    ) -> None:
        """The provider batch is known; `pending` tells others, the first look comes after `interval`."""
        poll = {"interval": interval, "failures": 0, "started_at": None, "last_at": None, "asked_at": None}
        created = {"provider_batch_id": provider_batch_id, "resolution": resolution}
        submitted = {"state": ShardState.SUBMITTED.value, "provider_batch_id": provider_batch_id}
        untold = dict.fromkeys(("provider_status", "provider_counts", "waiting", "search", "cancel_asked_at"))
        stages = [
            self._on_last(AttemptPhase.CREATED, created),
            append("outbox", pending),
            assign({**submitted, **untold, "poll": poll}, now=["submitted_at"]),
            assign(raw={"poll.next_at": expire_in(interval), "lease.attempt": 0}),
            no_deaths(),
        ]
        with self._live.letting_go():
            await self._put([*stages, release_stage()])
        self._knows(submitted, attempt={**created, "phase": AttemptPhase.CREATED.value})

    async def wait(self, reason: WaitReason, delay: float, *, anew: str | None = None) -> None:
        """Certainly nothing was accepted; try again in `delay` seconds.

        The same attempt goes on, its input included, unless `anew` says why it cannot.
        """
        phase = AttemptPhase.NOT_ACCEPTED if anew else self._phase_before_fence()
        waiting_since = {"$ifNull": ["$queued_since", "$$NOW"]}
        await self._outlive(
            [
                self._on_last(phase, {"resolution": anew} if anew else {}),
                assign(
                    {
                        "state": ShardState.WAITING.value,
                        "waiting.reason": reason.value,
                        "waiting.backoff": delay,
                    },
                    raw={
                        "queued_since": waiting_since,
                        "waiting.since": waiting_since,
                        "waiting.next_attempt_at": expire_in(delay),
                    },
                ),
            ]
        )

    async def end(self, changes: Document, resolution: str) -> None:
        """Certainly nothing of it is at the provider, and nothing will be: `changes` say what it ends as."""
        await self._outlive(
            [
                self._on_last(AttemptPhase.NOT_ACCEPTED, {"resolution": resolution}),
                assign(changes, now=["ended_at"]),
            ]
        )

    async def decide_split(self, split: Document, resolution: str) -> None:
        """The shard will not be sent again before it was split as `split` says; `resolution` says why."""
        await self._write(
            [
                self._on_last(AttemptPhase.NOT_ACCEPTED, {"resolution": resolution}),
                assign({"split": split, "waiting": None}),
            ]
        )

    async def shrink(self, changes: Document) -> None:
        """What the shard was split from it is stored elsewhere; it is to be submitted as it is now."""
        await self._outlive([assign({**changes, "state": ShardState.PLANNED.value, "submit_at": None})])

    async def unknown(self) -> None:
        """Nobody knows whether there is a provider batch: it is looked for at once."""
        await self._outlive(
            [
                self._on_last(AttemptPhase.UNKNOWN, {}),
                assign({"state": ShardState.SUBMIT_UNKNOWN.value, "search": None}),
            ]
        )

    async def hand_back(self, delay: float) -> None:
        """Not to be submitted, at least not in the next `delay` seconds; nothing of it is at the provider."""
        await self._outlive(
            [assign({"state": ShardState.PLANNED.value}, raw={"submit_at": expire_in(delay)})]
        )

    async def leave_alone(self, delay: float) -> None:
        """Not tried now, nor in the next `delay` seconds, because it has killed who tried."""
        await self._let_go([assign({"state": ShardState.PLANNED.value}, raw={"submit_at": expire_in(delay)})])

    async def no_look(self, delay: float) -> None:
        """The provider's list could not be read: that counts for nothing."""
        failures = {"$add": [{"$ifNull": ["$search.failures", 0]}, 1]}
        await self._let_go([assign(raw={"search.failures": failures, "search.next_at": expire_in(delay)})])

    async def looked(self, delay: float) -> None:
        """The whole list was read and nothing of the attempt was there; look again in `delay` seconds."""
        await self._let_go(
            [
                *self._count_look(),
                assign({"search.failures": 0}, raw={"search.next_at": expire_in(delay)}),
            ]
        )

    async def abandon(self, *, operator: bool) -> None:
        """The attempt is given up: another may start, unless an operator has to decide that.

        What it left behind, should it turn up after all, is swept for.
        """
        state = ShardState.WAITING if operator else ShardState.PLANNED
        reason = {"reason": WaitReason.OPERATOR.value, "next_attempt_at": None, "backoff": None}
        stages = [
            *self._count_look(),
            self._on_last(AttemptPhase.ABANDONED, {"resolution": "not_found"}),
            assign({"state": state.value, "search": None, "submit_at": None}, now=["sweep.next_at"]),
        ]
        if operator:
            since: Document = {"$ifNull": ["$queued_since", "$$NOW"]}
            stages += [
                assign({"waiting": reason}),
                assign(raw={"queued_since": since, "waiting.since": since}),
            ]
        await self._let_go(stages)

    def _count_look(self) -> list[Document]:
        looks = (self.attempt or {}).get("looks", 0) + 1
        return [self._on_last(None, {"looks": looks}, now=["last_look_at"])]

    def _phase_before_fence(self) -> AttemptPhase:
        phase = AttemptPhase(self._last()["phase"])
        return AttemptPhase.PREPARED if phase is AttemptPhase.CREATING else phase

    def _on_last(
        self, phase: AttemptPhase | None, values: Mapping[str, Any], *, now: Collection[str] = ()
    ) -> Document:
        moved = {} if phase is None else {"phase": phase.value}
        return on_attempt(self._last()["id"], {**moved, **values}, now=now)

    def _last(self) -> Document:
        if self.attempt is None:
            raise RuntimeError(f"{self.shard['_id']} has no attempt yet")
        return self.attempt

    async def _outlive(self, stages: Sequence[Mapping[str, Any]]) -> None:
        """Let go of a shard that was tried, which has not killed anybody."""
        await self._let_go([*stages, no_deaths()])

    async def _let_go(self, stages: Sequence[Mapping[str, Any]]) -> None:
        with self._live.letting_go():
            await self._write([*stages, release_stage()])

    async def _write(self, stages: Sequence[Mapping[str, Any]]) -> None:
        self.shard = await self._store.write(self._held(), [*self._unsaid, *stages])
        self._unsaid = []

    async def _put(self, stages: Sequence[Mapping[str, Any]]) -> None:
        """Likewise, without the shard as it is then."""
        await self._store.put(self._held(), [*self._unsaid, *stages])
        self._unsaid = []

    def _held(self) -> Document:
        return {"_id": self.shard["_id"], **self._live.held()}

    def _knows(self, changes: Document | None = None, *, attempt: Document) -> None:
        """What becomes of the shard and its newest attempt."""
        *earlier, last = self.shard["attempts"]
        self.shard = {**self.shard, **(changes or {}), "attempts": [*earlier, {**last, **attempt}]}


class Claim:
    """A shard as it was taken."""

    def __init__(self, store: "SubmitStore", shard: Document, lease: Lease) -> None:
        self.shard = shard
        self._store = store
        self._lease = lease

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[SubmitHold]:
        """Keep the shard while the body runs, which must end with the write that lets it go."""
        async with self._store.renewing(self.shard["_id"], self._lease) as live:
            yield SubmitHold(self._store, self.shard, live)


class SubmitStore:
    """The collection `shards`, until there is a provider batch."""

    def __init__(self, mongo: Mongo, owner: str, lease_ttl: float) -> None:
        self._shards = mongo.collection("shards")
        self._batches = mongo.collection("batches")
        self._owner = owner
        self._ttl = lease_ttl

    async def due(
        self, most: int, *, without_accounts: Collection[str] = (), largest: int | None = None
    ) -> list[Document]:
        """The first `most` shards to be submitted: {account_id, batch_id, plan_id, provider, state, bytes}.

        Except those of `without_accounts`, of more than `largest` bytes or unknown size, and `next_lethal`'s.
        """
        sizes = {} if largest is None else {"bytes": {"$gt": 0, "$lte": largest}}
        criteria = except_for(sizes, without_accounts)
        first, *others = looks(criteria, most)
        unions = [{"$unionWith": {"coll": "shards", "pipeline": look}} for look in others]
        return await self._shards.aggregate([*first, *unions, {"$limit": most}])

    async def next_lethal(self) -> Document | None:
        """Of the shards that may be what kills their submitters, whichever was left alone longest."""
        return await self._shards.find_one(LETHAL, SHOWN, sort=LETHAL_ORDER)

    async def next_unclear(self, without_accounts: Collection[str] = ()) -> Document | None:
        """The shard to be looked for next, except those of `without_accounts`."""
        return await self._shards.find_one(except_for(UNCLEAR, without_accounts), sort=LOOK_ORDER)

    async def get(self, shard_id: str) -> Document | None:
        return await self._shards.find_one({"_id": shard_id})

    async def insert(self, shard: Document) -> None:
        """Store a shard; one that is there already stays as it is."""
        await self._shards.insert_new(shard)

    async def attached(self, provider_batch_ids: Collection[str]) -> set[str]:
        """Those of the provider batches that a shard counts on, whichever account it runs on."""
        rows = await self._shards.find_all(
            # the type is what lets the partial index serve this
            {"provider_batch_id": {"$in": list(provider_batch_ids), "$type": "string"}},
            {"provider_batch_id": 1},
        )
        return {row["provider_batch_id"] for row in rows}

    async def defer(self, shard: Document, delay: float) -> None:
        """Do not offer a shard that nobody works on for `delay` seconds."""
        await self._shards.update_one(
            {"_id": shard["_id"], "state": shard["state"], **SUBMITTABLE},
            [assign({"state": ShardState.PLANNED.value}, raw={"submit_at": expire_in(delay)})],
        )

    async def discard(self, shard: Document) -> None:
        """End a shard whose plan is not its batch's; nobody counts or shows it."""
        await self._shards.update_one(
            {"_id": shard["_id"], "state": shard["state"], **SUBMITTABLE},
            [
                assign(
                    {"state": ShardState.SETTLED.value, "ended": ShardEnd.CANCELLED.value}, now=["ended_at"]
                )
            ],
        )

    async def claim(self, shard: Document) -> Claim | None:
        """Take the shard for submitting; None when another worker did, or there is nothing to do any more.

        Its newest attempt can go on: another has begun, with the claim, where the last could not.
        `lease.deaths` and `lease.taken_over` say what became of earlier submitters.
        """
        submitting = assign({"state": ShardState.SUBMITTING.value})
        return await self._claim(shard, SUBMITTABLE, [intend_stage(), submitting])

    async def claim_search(self, shard: Document) -> Claim | None:
        """Take the shard for looking for its last attempt; None when another worker did.

        `search.began_at` is the server's clock before the look.
        """
        last = shard["attempts"][-1]["id"]
        same_attempt = {"$expr": {"$eq": [{"$last": "$attempts.id"}, last]}}
        return await self._claim(
            shard,
            {"$and": [UNCLEAR, same_attempt]},
            [
                on_attempt(last, {"phase": AttemptPhase.UNKNOWN.value}),
                assign({"state": ShardState.SUBMIT_UNKNOWN.value}, now=["search.began_at"]),
            ],
        )

    async def _claim(self, shard: Document, criteria: Document, changes: list[Document]) -> Claim | None:
        lease = new_lease(self._owner, self._ttl)
        claimed = await self._shards.find_and_update(
            {"_id": shard["_id"], **criteria}, [*changes, death_stage(), claim_stage(lease, self._ttl)]
        )
        return None if claimed is None else Claim(self, claimed, lease)

    def renewing(self, shard_id: str, lease: Lease) -> AbstractAsyncContextManager[LiveLease]:
        return renewing(self._shards, shard_id, lease, self._ttl)

    async def write(self, held: Mapping[str, Any], stages: Sequence[Mapping[str, Any]]) -> Document:
        """The shard after the write; LeaseLost when `held` matches nothing."""
        after = await self._shards.find_and_update(held, stages)
        if after is None:
            raise LeaseLost(str(held["_id"]))
        return after

    async def put(self, held: Mapping[str, Any], stages: Sequence[Mapping[str, Any]]) -> None:
        """LeaseLost when `held` matches nothing."""
        if await self._shards.update_one(held, stages) == 0:
            raise LeaseLost(str(held["_id"]))

    async def show_submitted(self, batch_id: str) -> bool:
        """Show that a batch's only shard is submitted; False when the batch ends, and more is to be done."""
        shown = {"summary.shards": {ShardState.SUBMITTED.value: 1}, "summary.queue": None}
        running = {"_id": batch_id, "status": BatchStatus.IN_PROGRESS.value, "ending": None}
        return await self._batches.update_one(running, {"$set": shown}, durable=False) == 1

    async def count_waiting(self) -> dict[str, int]:
        """Reason and number of the shards that wait."""
        rows = await self._shards.aggregate(
            [
                {"$match": {"state": ShardState.WAITING.value}},
                {"$group": {"_id": "$waiting.reason", "shards": {"$sum": 1}}},
            ]
        )
        return {row["_id"]: row["shards"] for row in rows}
