"""The sweeper's queries: the only place that deletes blobs."""

from datetime import timedelta
from typing import Any

from floopy_common.chassis.clock import Clock, SystemClock
from floopy_common.chassis.mongo import Document, Mongo, assign
from floopy_common.stores.blobs import BlobState, chunks_of
from floopy_common.stores.files import STANDING

_AT_ONCE = 1_000
"""Blobs one call moves; the caller comes again until there are none."""

_KEYS_AT_ONCE = 20_000
"""Chunk keys one call looks through: one covered index scan of some 20 ms."""

_BLOB_ID_BYTES = len("blob_") + 24


class BlobSweeper:
    """Condemns what nobody refers to, looks again, deletes.

    A blob is referred to by its pins and by the ranges of files that stand. Pinning requires a live blob, and
    a new file looks at its blobs after it was stored, so whoever comes second gives way. Every step may be
    repeated, interrupted, or run twice at once. `age` and `grace` are seconds.
    """

    def __init__(self, mongo: Mongo, clock: Clock | None = None) -> None:
        self._blobs = mongo.collection("blobs")
        self._chunks = mongo.collection("blob_chunks")
        self._files = mongo.collection("files")
        self._clock = clock or SystemClock()

    async def condemn_unreferenced(self, age: float) -> int:
        """Condemn blobs older than `age` that nobody refers to; how many, at most a thousand a call."""
        unpinned: Document = {"state": BlobState.LIVE.value, "pins": []}
        candidates = await self._blobs.aggregate(
            [
                {"$match": {**unpinned, "$expr": {"$lte": ["$created_at", _ago(age)]}}},
                {"$lookup": {"from": self._files.name, "as": "files", **_STANDING_FILES}},
                {"$match": {"files": []}},
                {"$limit": _AT_ONCE},
                {"$project": {"_id": 1}},
            ]
        )
        if not candidates:
            return 0
        return await self._blobs.update_many(
            {"_id": {"$in": [found["_id"] for found in candidates]}, **unpinned},
            [assign({"state": BlobState.CONDEMNED.value}, now=["condemned_at"])],
        )

    async def delete_condemned(self, grace: float = 0.0) -> int:
        """Delete blobs condemned longer than `grace` ago; how many, at most a thousand a call.

        One that a file refers to after all lives on. The grace is for readers that began before the file was
        deleted.
        """
        condemned = {
            "state": BlobState.CONDEMNED.value,
            "$expr": {"$lte": ["$condemned_at", _ago(grace)]},
        }
        for blob in await self._blobs.find_all(condemned, {"_id": 1}, limit=_AT_ONCE):
            state = BlobState.LIVE if await self._is_in_a_file(blob["_id"]) else BlobState.DELETING
            await self._blobs.update_one(
                {"_id": blob["_id"], "state": BlobState.CONDEMNED.value}, {"$set": {"state": state.value}}
            )
        deleted = 0
        deleting = {"state": BlobState.DELETING.value}
        for blob in await self._blobs.find_all(deleting, {"_id": 1}, limit=_AT_ONCE):
            await self._chunks.delete_many(chunks_of(blob["_id"]))
            deleted += await self._blobs.delete_one({"_id": blob["_id"], **deleting})
        return deleted

    async def condemn_orphan_chunks(self, age: float, after: str = "") -> str:
        """Look through the next chunks behind the key `after`; the key reached, "" at the end.

        Chunks of a blob that does not exist and whose last chunk is older than `age` get a document that says
        they are being deleted: a writer that is alive after all cannot publish then.
        """
        keys = await self._chunks.find_all(
            {"_id": {"$gt": after}}, {"_id": 1}, sort=[("_id", 1)], limit=_KEYS_AT_ONCE
        )
        written = {key["_id"][:_BLOB_ID_BYTES] for key in keys}
        known = await self._blobs.find_all({"_id": {"$in": sorted(written)}}, {"_id": 1})
        for blob_id in sorted(written - {blob["_id"] for blob in known}):
            if await self._is_abandoned(blob_id, age):
                await self._blobs.insert_new(_tombstone(blob_id))
        return keys[-1]["_id"] if len(keys) == _KEYS_AT_ONCE else ""

    async def _is_in_a_file(self, blob_id: str) -> bool:
        return await self._files.find_one({"ranges.blob": blob_id, **STANDING}, {"_id": 1}) is not None

    async def _is_abandoned(self, blob_id: str, age: float) -> bool:
        last = await self._chunks.find_one(chunks_of(blob_id), {"at": 1}, sort=[("_id", -1)])
        return last is not None and last["at"] <= self._clock.now() - timedelta(seconds=age)


_STANDING_FILES: Document = {
    "localField": "_id",
    "foreignField": "ranges.blob",
    "pipeline": [{"$match": STANDING}, {"$limit": 1}, {"$project": {"_id": 1}}],
}


def _ago(seconds: float) -> dict[str, Any]:
    return {"$subtract": ["$$NOW", int(seconds * 1000)]}


def _tombstone(blob_id: str) -> Document:
    return {"_id": blob_id, "kind": None, "length": 0, "pins": [], "state": BlobState.DELETING.value}
