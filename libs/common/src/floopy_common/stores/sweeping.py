"""What goes when nobody needs it any more: content of ended batches, and blobs, which only this deletes."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from floopy_common.chassis.clock import Clock, SystemClock
from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.chassis.pipelines import assign
from floopy_common.domain.batch import TERMINAL
from floopy_common.stores.blobs import BlobState, BlobStore, chunks_of
from floopy_common.stores.files import STANDING, FileStore

_AT_ONCE = 1_000
"""Blobs one call moves; the caller comes again until there are none."""

_KEYS_AT_ONCE = 20_000
"""Chunk keys one call looks through: one covered index scan of some 20 ms."""

_BLOB_ID_BYTES = len("blob_") + 24
_BATCH_PREFIX = "batch_"
_ROWS_OF_CONTENT = ("requests", "scores", "judgements")
"""Collections keyed by line id that hold content, or what is about it; ledger and rollups stay."""


class BlobSweeper:
    """Condemns what nobody refers to, looks again, deletes.

    A blob is referred to by its pins, by the ranges of files that stand and by the parts of uploads. Pinning
    requires a live blob, a new file and a new part look at their blobs after they were stored, so whoever
    comes second gives way. Every step may be repeated, interrupted, or run twice at once. `age` and `grace`
    are seconds.
    """

    def __init__(self, mongo: Mongo, clock: Clock | None = None) -> None:
        self._blobs = mongo.collection("blobs")
        self._chunks = mongo.collection("blob_chunks")
        self._files = mongo.collection("files")
        self._uploads = mongo.collection("uploads")
        self._batches = mongo.collection("batches")
        self._clock = clock or SystemClock()

    async def condemn_unreferenced(self, age: float) -> int:
        """Condemn blobs older than `age` that nobody refers to; how many, at most a thousand a call."""
        unpinned: Document = {"state": BlobState.LIVE.value, "pins": []}
        candidates = await self._blobs.aggregate(
            [
                {"$match": {**unpinned, "$expr": {"$lte": ["$created_at", _ago(age)]}}},
                *_without(self._files.name, _STANDING_FILES),
                *_without(self._uploads.name, _PARTS),
                # once more: an upload lets go of its parts as soon as its file is there
                *_without(self._files.name, _STANDING_FILES),
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

        One that is referred to after all lives on. The grace is for readers that began before the file was
        deleted.
        """
        condemned = {
            "state": BlobState.CONDEMNED.value,
            "$expr": {"$lte": ["$condemned_at", _ago(grace)]},
        }
        for blob in await self._blobs.find_all(condemned, {"_id": 1}, limit=_AT_ONCE):
            state = BlobState.LIVE if await self._is_referred_to(blob["_id"]) else BlobState.DELETING
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

    async def remove_leaked_pins(self, age: float, after: str = "") -> tuple[int, str]:
        """Look through the next pinned blobs behind the id `after`: (pins removed, the id reached or "").

        A pin comes before its batch, so one without a batch is only noted; it goes when it was noted longer
        than `age` ago and there is still no such batch.
        """
        pinned = await self._blobs.find_all(
            {"_id": {"$gt": after}, "state": BlobState.LIVE.value, "pins": {"$ne": []}},
            {"pins": 1, "leaks": 1},
            sort=[("_id", 1)],
            limit=_AT_ONCE,
        )
        wanted = {pin for blob in pinned for pin in blob["pins"] if pin.startswith(_BATCH_PREFIX)}
        known = await self._batches.find_all({"_id": {"$in": sorted(wanted)}}, {"_id": 1})
        orphans = wanted - {batch["_id"] for batch in known}
        removed = 0
        for blob in pinned:
            removed += await self._judge_pins(blob, orphans, age)
        return removed, pinned[-1]["_id"] if len(pinned) == _AT_ONCE else ""

    async def _judge_pins(self, blob: Document, orphans: set[str], age: float) -> int:
        now = self._clock.now()
        noted = {leak["batch"]: leak["at"] for leak in blob.get("leaks") or []}
        leaks = [
            {"batch": pin, "at": noted.get(pin, now)} for pin in sorted(orphans.intersection(blob["pins"]))
        ]
        if not leaks and not noted:
            return 0
        gone = [leak["batch"] for leak in leaks if leak["at"] <= now - timedelta(seconds=age)]
        await self._blobs.update_one(
            {"_id": blob["_id"]}, {"$set": {"leaks": leaks}, "$pull": {"pins": {"$in": gone}}}
        )
        return len(gone)

    async def _is_referred_to(self, blob_id: str) -> bool:
        # the upload first: it lets go of its parts only once its file is there
        if await self._uploads.find_one({"parts.blob": blob_id}, {"_id": 1}) is not None:
            return True
        return await self._files.find_one({"ranges.blob": blob_id, **STANDING}, {"_id": 1}) is not None

    async def _is_abandoned(self, blob_id: str, age: float) -> bool:
        last = await self._chunks.find_one(chunks_of(blob_id), {"at": 1}, sort=[("_id", -1)])
        return last is not None and last["at"] <= self._clock.now() - timedelta(seconds=age)


class EndedStore:
    """Terminal batches, as far as something of theirs is still to be removed.

    `cleanup` in a batch: {stage, next_at}; none at all in one that another service ended.
    """

    def __init__(self, mongo: Mongo, blobs: BlobStore, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._batches = mongo.collection("batches")
        self._shards = mongo.collection("shards")
        self._rows = [mongo.collection(name) for name in _ROWS_OF_CONTENT]
        self._blobs = blobs
        self._files = FileStore(mongo, self._clock)

    async def due(self, limit: int) -> list[Document]:
        """The ended batches longest due, as far as cleaning up reads them."""
        return await self._batches.find_all(
            {
                "status": {"$in": _ENDED},
                # by aggregation's order a missing time comes before every other
                "$expr": {"$lte": ["$cleanup.next_at", self._clock.now()]},
            },
            _OF_ENDED,
            sort=[("cleanup.next_at", 1)],
            limit=limit,
            durable=False,
        )

    async def take(self, batches: Sequence[Document], seconds: float) -> bool:
        """Have none of these batches be due for `seconds`; False when another worker has done so.

        Two that come at once may both go on: every step may be repeated.
        """
        now = self._clock.now()
        taken = await self._batches.update_many(
            {
                "_id": {"$in": [batch["_id"] for batch in batches]},
                "status": {"$in": _ENDED},
                "$expr": {"$lte": ["$cleanup.next_at", now]},
            },
            {"$set": {"cleanup.next_at": now + timedelta(seconds=seconds)}},
        )
        return taken > 0

    async def shards_of(self, batch_ids: Collection[str]) -> list[Document]:
        """Every shard of the batches, as far as it says what of it is left at its provider."""
        return await self._shards.find_all({"batch_id": {"$in": list(batch_ids)}}, _OF_SHARDS)

    async def rest(self, stage: str, seconds: Mapping[str, float | None]) -> None:
        """Each batch is at `stage` now and due again in so many seconds; None: never."""
        now = self._clock.now()
        later = {
            batch_id: _NEVER if left is None else now + timedelta(seconds=left)
            for batch_id, left in seconds.items()
        }
        await self._batches.update_each(
            [
                ({"_id": batch_id}, {"$set": {"cleanup": {"stage": stage, "next_at": at}}})
                for batch_id, at in later.items()
            ]
        )

    async def drop_content(self, batch_id: str) -> None:
        """Let go of the batch's blobs, take its files out of sight, delete its log rows and scores."""
        await self._files.delete_outputs(batch_id)
        for rows in self._rows:
            await rows.delete_many({"_id": {"$gte": f"{batch_id}:", "$lt": f"{batch_id};"}})
        await self._blobs.unpin(batch_id)


_NEVER = datetime(9999, 1, 1, tzinfo=UTC)
"""Beyond every moment something can be due at."""
_ENDED = sorted(status.value for status in TERMINAL)
_OF_ENDED = dict.fromkeys(
    (
        "status",
        "created_at",
        *(f"{status}_at" for status in _ENDED),
        "plan.plan_id",
        "cleanup",
        "audit.stage",
    ),
    1,
)
_OF_SHARDS = dict.fromkeys(("batch_id", "plan_id", "state", "account_id", "attempts.input_file_id"), 1)

_STANDING_FILES: Document = {
    "localField": "_id",
    "foreignField": "ranges.blob",
    "pipeline": [{"$match": STANDING}, {"$limit": 1}, {"$project": {"_id": 1}}],
}


_PARTS: Document = {
    "localField": "_id",
    "foreignField": "parts.blob",
    "pipeline": [{"$limit": 1}, {"$project": {"_id": 1}}],
}


def _without(collection: str, reference: Document) -> list[Document]:
    """Stages that keep the blobs nothing in this collection refers to."""
    return [
        {"$lookup": {"from": collection, "as": "referring", **reference}},
        {"$match": {"referring": []}},
    ]


def _ago(seconds: float) -> dict[str, Any]:
    return {"$subtract": ["$$NOW", int(seconds * 1000)]}


def _tombstone(blob_id: str) -> Document:
    return {"_id": blob_id, "kind": None, "length": 0, "pins": [], "state": BlobState.DELETING.value}
