"""Accounts whose list of provider batches is read instead of each batch: by whom, and what it showed."""

import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from floopy_common.chassis.lease import Lease, LiveLease, claim_stage, new_lease, release_stage, renewing
from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.chassis.pipelines import FREE_LEASE, assign, due, expire_in
from floopy_common.domain.errors import LeaseLost
from floopy_common.domain.shard import URGENT, ShardState

_LISTED: Document = {"state": {"$in": [ShardState.SUBMITTED.value, ShardState.CANCELLING.value]}}
"""Shards of which a listing says something; one that is downloaded has the provider's last word."""
_MOST_DUE = 2_000
"""Due shards counted at once: enough to see who has many, few enough to do it several times a second."""
_LONG = _MOST_DUE // 2
"""Pages that make a listing long; a longer one is read all the same once as many shards are due."""
_SHOWN = dict.fromkeys(
    (
        "batch_id",
        "account_id",
        "lines",
        "bytes",
        "state",
        "provider_batch_id",
        "provider_status",
        "provider_counts",
        "provider_files",
        "provider_lost_at",
        "cancel_asked_at",
        "poll",
    ),
    1,
)


class ListingHold:
    """An account's listing, read by this worker alone; each last write ends the hold or raises LeaseLost."""

    def __init__(self, store: "ListingStore", document: Document, live: LiveLease, read_at: float) -> None:
        self._store = store
        self._document = document
        self._live = live
        self._read_at = read_at

    @property
    def account_id(self) -> str:
        return str(self._document["_id"])

    @property
    def began_at(self) -> datetime:
        began: datetime = self._document["began_at"]
        return began

    @property
    def failures(self) -> int:
        return int(self._document["failures"])

    @property
    def marks(self) -> list[Document]:
        """{id, at} of provider batches some pages apart, newest first, as the last reading met them."""
        return list(self._document["marks"])

    def now(self) -> datetime:
        """The server's clock, late by as long as its answer took and never early."""
        return self.began_at + timedelta(seconds=time.monotonic() - self._read_at)

    async def finish(self, pages: int, marks: Sequence[Document]) -> None:
        """The whole listing was read."""
        await self._end({"pages": min(pages, _LONG), "marks": list(marks), "failures": 0})

    async def fail(self, delay: float, *, wait: bool) -> None:
        """It was not, and is not tried again for `delay` seconds.

        With `wait` the account's shards wait for that, else each of them is looked at by itself meanwhile.
        """
        failed = {"failures": self.failures + 1, "marks": [], "pages": 0}
        if wait:
            away = assign({**failed, "lease.token": None, "lease.owner": None})
            await self._write([away, assign(raw={"lease.expires_at": expire_in(delay)})])
        else:
            await self._write([assign(failed, raw={"next_at": expire_in(delay)}), release_stage()])

    async def let_go(self) -> None:
        """Whoever comes next begins anew."""
        await self._end({})

    async def _end(self, fields: Mapping[str, Any]) -> None:
        await self._write([assign(fields), release_stage()] if fields else [release_stage()])

    async def _write(self, stages: Sequence[Mapping[str, Any]]) -> None:
        with self._live.letting_go():
            if not await self._store.write({"_id": self.account_id, **self._live.held()}, stages):
                raise LeaseLost(self.account_id)


class ListingClaim:
    """An account's listing as it was taken."""

    def __init__(self, store: "ListingStore", document: Document, lease: Lease, read_at: float) -> None:
        self._store = store
        self._document = document
        self._lease = lease
        self._read_at = read_at

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[ListingHold]:
        """Keep the listing while the body runs, which must end with the write that lets it go."""
        async with self._store.renewing(self._document["_id"], self._lease) as live:
            yield ListingHold(self._store, self._document, live, self._read_at)


class ListingStore:
    """The collection `listings`, and shards many at a time."""

    def __init__(self, mongo: Mongo, owner: str, lease_ttl: float) -> None:
        self._listings = mongo.collection("listings")
        self._shards = mongo.collection("shards")
        self._owner = owner
        self._ttl = lease_ttl

    async def held(self) -> set[str]:
        """Accounts whose listing somebody reads, or waits to read again."""
        rows = await self._listings.find_all({"$expr": {"$gt": ["$lease.expires_at", "$$NOW"]}}, {"_id": 1})
        return {row["_id"] for row in rows}

    async def due_accounts(self, without: Collection[str] = ()) -> dict[str, int]:
        """How many shards of which account are due, not counting urgent ones, nor above some thousands."""
        criteria: Document = {
            **_LISTED,
            "poll.next_at": {"$gt": URGENT},
            **due("poll.next_at"),
        }
        if without:
            criteria["account_id"] = {"$nin": list(without)}
        rows = await self._shards.aggregate(
            [
                {"$match": criteria},
                {"$limit": _MOST_DUE},
                {"$group": {"_id": "$account_id", "due": {"$sum": 1}}},
            ]
        )
        return {row["_id"]: row["due"] for row in rows}

    async def crowd(self, many: int) -> tuple[int, dict[str, int]]:
        """How many accounts have open shards, and how many those have that have more than `many`."""
        large = {"$cond": [{"$gt": ["$open", many]}, {"account": "$_id", "open": "$open"}, "$$REMOVE"]}
        rows = await self._shards.aggregate(
            [
                {"$match": {**_LISTED, "poll.next_at": {"$gte": URGENT}}},
                {"$group": {"_id": "$account_id", "open": {"$sum": 1}}},
                {"$group": {"_id": None, "accounts": {"$sum": 1}, "large": {"$push": large}}},
            ]
        )
        if not rows:
            return 0, {}
        return rows[0]["accounts"], {row["account"]: row["open"] for row in rows[0]["large"]}

    async def claim(self, account_id: str, due_shards: int) -> ListingClaim | None:
        """Take the listing; None when another worker has it, or looking at each due shard costs less."""
        lease = new_lease(self._owner, self._ttl)
        criteria = {
            "_id": account_id,
            "pages": {"$lte": due_shards},
            "$and": [FREE_LEASE, due("next_at")],
        }
        stages = [assign(now=["began_at"]), claim_stage(lease, self._ttl)]
        found = await self._listings.find_and_update(criteria, stages)
        if found is None and await self._listings.insert_new(_unread(account_id)):
            found = await self._listings.find_and_update(criteria, stages)
        return None if found is None else ListingClaim(self, found, lease, time.monotonic())

    @asynccontextmanager
    async def renewing(self, account_id: str, lease: Lease) -> AsyncIterator[LiveLease]:
        async with renewing(self._listings, account_id, lease, self._ttl) as live:
            yield live

    async def write(self, criteria: Mapping[str, Any], stages: Sequence[Mapping[str, Any]]) -> bool:
        return await self._listings.update_one(criteria, stages) == 1

    async def oldest_open(self, account_id: str) -> datetime | None:
        """When the account's oldest open shard was submitted; None when it has none."""
        oldest = await self._shards.find_one(
            {"account_id": account_id, **_LISTED}, {"submitted_at": 1}, sort=[("submitted_at", 1)]
        )
        return None if oldest is None else oldest["submitted_at"]

    async def open_among(self, account_id: str, provider_batch_ids: Collection[str]) -> list[Document]:
        """The account's open shards of these provider batches, as far as a look reads them."""
        wanted = {"account_id": account_id, "provider_batch_id": {"$in": list(provider_batch_ids)}}
        return await self._shards.find_all({**wanted, **_LISTED}, _SHOWN)

    async def unchanged(
        self,
        account_id: str,
        provider_batch_ids: Collection[str],
        *,
        listed_at: datetime,
        interval: float,
        delay: float,
    ) -> None:
        """A listing asked for at `listed_at` showed nothing new of these: look again `delay` seconds later.

        Leaves alone who is looked at, was since then, or is to be looked at by itself.
        """
        await self._shards.update_many(
            {
                "account_id": account_id,
                "provider_batch_id": {"$in": list(provider_batch_ids)},
                **_LISTED,
                "poll.next_at": {"$gt": URGENT},
                "poll.started_at": {"$not": {"$gt": listed_at}},
                "poll.claimed_until": {"$not": {"$gt": listed_at}},
            },
            {
                "$set": {
                    "poll.last_at": listed_at,
                    "poll.next_at": listed_at + timedelta(seconds=delay),
                    "poll.interval": interval,
                    "poll.failures": 0,
                }
            },
        )

    async def hurry_unseen(self, account_id: str, began_at: datetime) -> int:
        """Have each shard looked at that was due when a reading began and still is: it was not listed."""
        return await self._shards.update_many(
            {
                "account_id": account_id,
                **_LISTED,
                "poll.next_at": {"$gt": URGENT, "$lte": began_at},
            },
            [assign({"poll.next_at": URGENT}, raw={"poll.due_at": "$poll.next_at"})],
        )


def _unread(account_id: str) -> Document:
    return {
        "_id": account_id,
        "lease": None,
        "began_at": None,
        "next_at": URGENT,
        "pages": 0,
        "failures": 0,
        "marks": [],
    }
