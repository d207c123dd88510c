"""Uploads: files that arrive in parts; every move is one conditional update of one document."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from floopy_common.chassis.clock import Clock, SystemClock
from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.domain.errors import BlobMissing
from floopy_common.openai.uploads import UploadStatus
from floopy_common.stores.blobs import BlobState

_OPEN: Document = {"status": UploadStatus.PENDING.value, "$expr": {"$gt": ["$expires_at", "$$NOW"]}}
_OVERDUE: Document = {"status": UploadStatus.PENDING.value, "$expr": {"$lte": ["$expires_at", "$$NOW"]}}
_ENDED = [status.value for status in UploadStatus if status is not UploadStatus.PENDING]


class UploadStore:
    """The collection `uploads`.

    A blob named in `parts` is referred to: the sweeper leaves it alone. Whatever ends an upload empties the
    list; a completed one keeps it until its file is stored, so there is no moment without a reference.
    """

    def __init__(self, mongo: Mongo, clock: Clock | None = None) -> None:
        self._uploads = mongo.collection("uploads")
        self._blobs = mongo.collection("blobs")
        self._clock = clock or SystemClock()

    async def insert(self, upload: Document) -> bool:
        """Store a new upload; False when its id or its idempotency key is taken."""
        return await self._uploads.insert_new(upload)

    async def get_owned(self, org_id: str, upload_id: str, *, parts: bool = False) -> Document | None:
        """The upload, expired if its time is over; None when the organisation has none of that id.

        Without its parts unless they are asked for: there may be thousands.
        """
        await self._expire({"_id": upload_id})
        projection = None if parts else {"parts": 0}
        return await self._uploads.find_one({"_id": upload_id, "org_id": org_id}, projection)

    async def add_part(self, upload_id: str, part: Document, most_bytes: int, most_parts: int) -> bool:
        """Add a part whose blob is written; False when the upload is not open or has no room for it.

        Raises BlobMissing, and adds nothing, when the sweeper took the blob.
        """
        room = {"received": {"$lte": most_bytes - part["length"]}, "part_count": {"$lt": most_parts}}
        added = {"$push": {"parts": part}, "$inc": {"received": part["length"], "part_count": 1}}
        if await self._uploads.update_one({"_id": upload_id, **_OPEN, **room}, added) == 0:
            return False
        # Looked at only now: the sweeper condemns, then looks for uploads. One of the two sees the other.
        live = {"_id": part["blob"], "state": BlobState.LIVE.value}
        if await self._blobs.count(live) == 0:
            await self._uploads.update_one({"_id": upload_id}, {"$pull": {"parts": {"id": part["id"]}}})
            raise BlobMissing(f"the blob of {part['id']} is gone")
        return True

    async def complete(self, upload_id: str, part_ids: Sequence[str], file: Document) -> Document | None:
        """Make the upload the file `file`, not stored yet; None when it is not open any more."""
        return await self._uploads.find_and_update(
            {"_id": upload_id, **_OPEN},
            {
                "$set": {
                    "status": UploadStatus.COMPLETED.value,
                    "part_ids": list(part_ids),
                    "file": file,
                    "settled": False,
                }
            },
        )

    async def settle(self, upload_id: str) -> None:
        """The file of a completed upload is stored: it refers to the parts now."""
        await self._uploads.update_one({"_id": upload_id}, {"$set": {"settled": True, "parts": []}})

    async def cancel(self, upload_id: str) -> Document | None:
        """The upload as cancelled; None when it is not open any more."""
        return await self._uploads.find_and_update(
            {"_id": upload_id, **_OPEN}, _ended(UploadStatus.CANCELLED)
        )

    async def list_unsettled(self, limit: int) -> list[Document]:
        """Completed uploads whose file may not be stored."""
        return await self._uploads.find_all({"settled": False}, limit=limit)

    async def expire(self) -> int:
        """Expire what is overdue and let go of its parts; how many uploads that were."""
        return await self._expire({})

    async def purge(self, age: float) -> int:
        """Forget uploads that ended and would have expired more than `age` seconds ago."""
        before = self._clock.now() - timedelta(seconds=age)
        return await self._uploads.delete_many(
            {"status": {"$in": _ENDED}, "expires_at": {"$lte": before}, "settled": {"$ne": False}}
        )

    async def find_by_idempotency_key(self, org_id: str, api_key_id: str, key: str) -> Document | None:
        """The upload that holds the key; one that came to nothing has let go of it."""
        # MongoDB takes a partial index only for a filter that repeats the index's own condition
        wanted = {
            "org_id": org_id,
            "api_key_id": api_key_id,
            "idempotency_key": {"$eq": key, "$type": "string"},
        }
        await self._expire(wanted)
        return await self._uploads.find_one(wanted)

    async def release_idempotency_key(self, upload_id: str, key: str) -> None:
        """Let the key be used for another upload."""
        await self._uploads.update_one(
            {"_id": upload_id, "idempotency_key": key}, {"$unset": {"idempotency_key": ""}}
        )

    async def _expire(self, criteria: Mapping[str, Any]) -> int:
        return await self._uploads.update_many({**criteria, **_OVERDUE}, _ended(UploadStatus.EXPIRED))


def _ended(status: UploadStatus) -> Document:
    return {"$set": {"status": status.value, "parts": []}, "$unset": {"idempotency_key": ""}}
