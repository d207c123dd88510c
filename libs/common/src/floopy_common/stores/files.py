"""Files: what an organisation sees of blobs; deleting one is soft, expiry needs no clock of ours."""

from datetime import timedelta
from typing import Literal

from floopy_common.chassis.clock import Clock, SystemClock
from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.domain.errors import BlobMissing
from floopy_common.stores.blobs import BlobState

Order = Literal["asc", "desc"]

STANDING: Document = {
    "deleted_at": None,
    "$expr": {
        "$or": [
            {"$eq": [{"$ifNull": ["$expires_at", None]}, None]},
            {"$gt": ["$expires_at", "$$NOW"]},
        ]
    },
}
"""Matches files that are neither deleted nor expired; all others are as good as unknown."""


class FileStore:
    """The collection `files`."""

    def __init__(self, mongo: Mongo, clock: Clock | None = None) -> None:
        self._files = mongo.collection("files")
        self._blobs = mongo.collection("blobs")
        self._clock = clock or SystemClock()

    async def insert(self, file: Document) -> bool:
        """Store a new file whose blobs are written; False when its id or its idempotency key is taken.

        Raises BlobMissing, and stores nothing, when the sweeper took one of them.
        """
        if not await self._files.insert_new(file):
            return False
        # Looked at only now: the sweeper condemns, then looks for files. One of the two sees the other.
        blobs = {part["blob"] for part in file["ranges"]}
        live = {"_id": {"$in": sorted(blobs)}, "state": BlobState.LIVE.value}
        if await self._blobs.count(live) != len(blobs):
            await self._files.delete_one({"_id": file["_id"]})
            raise BlobMissing(f"a blob of {file['_id']} is gone")
        return True

    async def insert_output(self, file: Document) -> bool:
        """Store a batch's output or error file, whose blobs the batch pins; False when it is there."""
        return await self._files.insert_new(file)

    async def get_owned(self, org_id: str, file_id: str) -> Document | None:
        """The file; None when it is unknown, another organisation's, deleted or expired."""
        return await self._files.find_one({"_id": file_id, "org_id": org_id, **STANDING})

    async def find_position(self, org_id: str, file_id: str) -> Document | None:
        """The file as a place to list from: a deleted one too, because clients delete while they page."""
        return await self._files.find_one({"_id": file_id, "org_id": org_id})

    async def list_owned(
        self,
        org_id: str,
        *,
        purpose: str | None = None,
        limit: int = 0,
        order: Order = "desc",
        after: Document | None = None,
    ) -> list[Document]:
        """At most `limit` files (0: all) behind the file `after`, newest first unless `order` is asc."""
        direction, beyond = (1, "$gt") if order == "asc" else (-1, "$lt")
        criteria: Document = {"org_id": org_id, **STANDING}
        if purpose is not None:
            criteria["purpose"] = purpose
        if after is not None:
            criteria["$or"] = [
                {"created_at": {beyond: after["created_at"]}},
                {"created_at": after["created_at"], "_id": {beyond: after["_id"]}},
            ]
        sort = [("created_at", direction), ("_id", direction)]
        return await self._files.find_all(criteria, sort=sort, limit=limit)

    async def delete_owned(self, org_id: str, file_id: str) -> bool:
        """Take the file out of sight; False when the organisation has no such file.

        Its blobs stay as long as a batch pins them.
        """
        wanted = {"_id": file_id, "org_id": org_id, **STANDING}
        gone = {"$set": {"deleted_at": self._clock.now()}, "$unset": {"idempotency_key": ""}}
        return await self._files.update_one(wanted, gone) == 1

    async def delete_outputs(self, batch_id: str) -> int:
        """Take a batch's output and error file out of sight, once its retention has ended; how many."""
        wanted = {"batch_id": batch_id, "deleted_at": None}
        return await self._files.update_many(wanted, {"$set": {"deleted_at": self._clock.now()}})

    async def find_by_idempotency_key(self, org_id: str, api_key_id: str, key: str) -> Document | None:
        # MongoDB takes a partial index only for a filter that repeats the index's own condition
        wanted = {
            "org_id": org_id,
            "api_key_id": api_key_id,
            "idempotency_key": {"$eq": key, "$type": "string"},
        }
        return await self._files.find_one(wanted)

    async def release_idempotency_key(self, file_id: str, key: str) -> None:
        """Let the key be used for another file."""
        await self._files.update_one(
            {"_id": file_id, "idempotency_key": key}, {"$unset": {"idempotency_key": ""}}
        )

    async def purge(self, age: float) -> int:
        """Forget uploaded files deleted or expired more than `age` seconds ago; how many.

        A batch's own files stay: they are what it is verified by, and few.
        """
        before = self._clock.now() - timedelta(seconds=age)
        purged = 0
        for moment in ("deleted_at", "expires_at"):
            gone = {"$type": "date", "$lte": before}
            purged += await self._files.delete_many({moment: gone, "kind": "upload"})
        return purged
