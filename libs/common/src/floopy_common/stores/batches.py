"""Batches: insert, look up, list, and the one conditional update that moves a status."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.chassis.outbox import entry
from floopy_common.domain.batch import BatchStatus, check_transition, timestamp_field
from floopy_common.events.lifecycle import lifecycle_event

SHOWN: Document = dict.fromkeys(
    ("input", "outbox", "lease", "plan.groups", "planning", "context.headers", "sendings"), 0
)
"""Left out wherever a batch is only read to be shown or moved: by far the most of its bytes."""


class BatchStore:
    """The collection `batches`, as far as every service shares it."""

    def __init__(self, mongo: Mongo) -> None:
        self.collection = mongo.collection("batches")

    async def insert(self, batch: Document) -> bool:
        """Insert a new batch with its pending event; False when its key or number is taken."""
        return await self.collection.insert_new(batch)

    async def announce(self, batch: Document, *, event: str, by: str, now: datetime) -> bool:
        """Insert a new batch with the event that tells of it; False when its key or number is taken."""
        event_id, value = lifecycle_event(event, batch, at=now)
        pending = entry(event_id=event_id, topic=event, key=batch["_id"], by=by, value=value)
        return await self.insert({**batch, "outbox": [pending]})

    async def get(self, batch_id: str) -> Document | None:
        return await self.collection.find_one({"_id": batch_id})

    async def get_owned(self, org_id: str, batch_id: str) -> Document | None:
        """The batch, unless it is another organisation's: then it is as good as unknown."""
        return await self.collection.find_one({"_id": batch_id, "org_id": org_id}, SHOWN)

    async def list_owned(self, org_id: str, limit: int, after: Document | None = None) -> list[Document]:
        """Newest first, at most `limit`, starting behind the batch `after`."""
        criteria: Document = {"org_id": org_id}
        if after is not None:
            criteria["$or"] = [
                {"created_at": {"$lt": after["created_at"]}},
                {"created_at": after["created_at"], "_id": {"$lt": after["_id"]}},
            ]
        newest = [("created_at", -1), ("_id", -1)]
        return await self.collection.find_all(criteria, SHOWN, sort=newest, limit=limit)

    async def find_by_idempotency_key(self, org_id: str, api_key_id: str, key: str) -> Document | None:
        # MongoDB takes a partial index only for a filter that repeats the index's own condition
        wanted = {
            "org_id": org_id,
            "api_key_id": api_key_id,
            "idempotency_key": {"$eq": key, "$type": "string"},
        }
        return await self.collection.find_one(wanted)

    async def release_idempotency_key(self, batch_id: str, key: str) -> None:
        """Let the key be used for another batch."""
        await self.collection.update_one(
            {"_id": batch_id, "idempotency_key": key}, {"$unset": {"idempotency_key": ""}}
        )

    async def absorb_retry(
        self, api_key_id: str, request_hash: str, since: datetime, retry_count: int
    ) -> Document | None:
        """The batch a client's repeated create belongs to, marked as having absorbed this repeat.

        Only a batch of the same key and body, no older than `since`, that has met an earlier sending and not
        one of this count: two creates that are meant to be two do not collapse.
        """
        return await self.collection.find_and_update(
            {
                "api_key_id": api_key_id,
                "request_hash": request_hash,
                "nth": {"$gte": 0},
                "created_at": {"$gte": since},
                "sendings": {"$lt": retry_count, "$ne": retry_count},
            },
            {"$max": {"retry_count": retry_count}, "$push": {"sendings": retry_count}},
            sort=[("nth", -1)],
            projection=SHOWN,
        )

    async def find_newest_equal(self, api_key_id: str, request_hash: str) -> Document | None:
        """{created_at, nth} of the batch with the highest number among those of equal requests."""
        return await self.collection.find_one(
            {"api_key_id": api_key_id, "request_hash": request_hash, "nth": {"$gte": 0}},
            {"created_at": 1, "nth": 1},
            sort=[("nth", -1)],
        )

    async def join_later_sending(
        self, api_key_id: str, request_hash: str, since: datetime, count: int
    ) -> Document | None:
        """The batch that only later sendings than `count` of a request have met so far, marked as met by this
        one too.
        """
        return await self.collection.find_and_update(
            {
                "api_key_id": api_key_id,
                "request_hash": request_hash,
                "nth": {"$gte": 0},
                "created_at": {"$gte": since},
                "sendings": {"$not": {"$lte": count}},
            },
            {"$push": {"sendings": count}},
            sort=[("nth", 1)],
            projection=SHOWN,
        )

    async def transition(
        self,
        batch: Document,
        to: BatchStatus,
        *,
        now: datetime,
        by: str,
        fields: Mapping[str, Any] | None = None,
        event: str | None = None,
        lease_token: str | None = None,
    ) -> Document | None:
        """Move `batch` (as it was read) to `to`, with its event in the same write.

        Returns the document afterwards, or None when somebody changed the batch first: read again and decide
        anew. Raises IllegalTransition for a move the lattice does not have.
        """
        check_transition(BatchStatus(batch["status"]), to)
        changes: Document = {"status": to.value, "version": batch["version"] + 1, **(fields or {})}
        stamp = timestamp_field(to)
        if stamp is not None and batch.get(stamp) is None:
            changes[stamp] = now
        update: Document = {"$set": changes}
        if event is not None:
            event_id, value = lifecycle_event(event, {**batch, **changes}, at=now)
            pending = entry(event_id=event_id, topic=event, key=batch["_id"], by=by, value=value)
            update["$push"] = {"outbox": pending}
        criteria: Document = {
            "_id": batch["_id"],
            "status": batch["status"],
            "version": batch["version"],
        }
        if lease_token is not None:
            criteria["lease.token"] = lease_token
        return await self.collection.find_and_update(criteria, update)

    async def mark(self, batch_id: str, criteria: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
        """Set fields that carry no status, where `criteria` still hold."""
        matched = await self.collection.update_one({"_id": batch_id, **criteria}, {"$set": dict(fields)})
        return matched == 1
