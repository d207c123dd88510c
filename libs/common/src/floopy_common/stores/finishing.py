"""What the batch step asks of planned batches and their segments: turns, readiness, what is written."""

import asyncio
from collections.abc import Collection, Iterable
from datetime import UTC, datetime

from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.chassis.pipelines import assign, due
from floopy_common.domain.batch import BatchStatus, Ending
from floopy_common.domain.index import INPUT_ENTRY_BYTES
from floopy_common.domain.segment import WRITTEN_STATES
from floopy_common.stores.blobs import BlobStore

_UNDER_WAY = (BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING, BatchStatus.CANCELLING)
_AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)
"""Before every moment a turn can be due at, so a nudged batch is next whatever the backlog."""
_WRITTEN = [state.value for state in WRITTEN_STATES]
_READY = {"$set": {"ready": True}}
_FEW = 4
"""Segments of one batch that are marked along with those of other batches; more take a call of their own."""
_IS_UNDER_WAY: Document = {"status": {"$in": [status.value for status in _UNDER_WAY]}}
_RARER = 20
"""A batch that moves by itself waits a second longer for its turn for every so many that it has run."""
_RAREST = 60
"""At most so many times the shortest interval."""


class TurnStore:
    """Whose turn it is: every batch that is under way gets a step again and again."""

    def __init__(self, mongo: Mongo) -> None:
        self._batches = mongo.collection("batches")

    async def take(self, limit: int, seconds: float) -> list[Document]:
        """The batches longest due for a step, at most `limit`, which nobody else has then.

        Each one's next turn is `seconds` away where it is ending; else the further away the longer it has
        run, since only what a crash left unsaid waits for it, but not beyond the time it expires.
        """
        is_due = {**_IS_UNDER_WAY, **due("next_look_at")}
        later = [assign(raw={"next_look_at": _next_turn(seconds)})]
        found = await self._batches.find_all(
            is_due, {"_id": 1}, sort=[("next_look_at", 1)], limit=limit, durable=False
        )
        taken = await asyncio.gather(
            *(
                self._batches.find_and_update({"_id": batch["_id"], **is_due}, later, durable=False)
                for batch in found
            )
        )
        return [batch for batch in taken if batch is not None]

    async def get(self, batch_id: str) -> Document | None:
        """The batch, if it is under way."""
        return await self._batches.find_one({"_id": batch_id, **_IS_UNDER_WAY})

    async def all_due(self) -> None:
        """Every batch is due for a step now."""
        await self._batches.update_many(
            _IS_UNDER_WAY, [assign(raw={"next_look_at": {"$min": ["$next_look_at", "$$NOW"]}})]
        )

    async def nudge(self, batch_id: str) -> None:
        """Something happened: the batch's next step is due at once."""
        await self._batches.update_one({"_id": batch_id}, {"$set": {"next_look_at": _AT_ONCE}}, durable=False)

    async def set_ending(self, batch: Document, ending: Ending, at: datetime) -> bool:
        """Decide, once, how the batch will end; False when that was decided or its status moved."""
        return (
            await self._batches.update_one(
                {"_id": batch["_id"], "status": batch["status"], "ending": None},
                {"$set": {"ending": ending.value, "ending_at": at}},
            )
            == 1
        )


def _next_turn(seconds: float) -> Document:
    shortest = int(seconds * 1000)
    age = {"$subtract": ["$$NOW", {"$ifNull": ["$in_progress_at", "$created_at"]}]}
    wait = {"$max": [shortest, {"$min": [{"$divide": [age, _RARER]}, shortest * _RAREST]}]}
    soon = {"$add": ["$$NOW", shortest]}
    runs = {
        "$and": [
            {"$eq": ["$status", BatchStatus.IN_PROGRESS.value]},
            {"$eq": [{"$ifNull": ["$ending", None]}, None]},
        ]
    }
    later = {"$min": [{"$add": ["$$NOW", wait]}, {"$max": ["$expires_at", soon]}]}
    return {"$cond": [runs, later, soon]}


class SegmentProgressStore:
    """The collection `segments`, as far as winding up a batch reads and marks it."""

    def __init__(self, mongo: Mongo) -> None:
        self._segments = mongo.collection("segments")

    async def mark_ready(self, batch_id: str, plan_id: str, except_for: Collection[int]) -> list[Document]:
        """Offer every other segment to the writer; {_id, no, lines, bytes} of the newly offered."""
        held_back = {"batch_id": batch_id, "plan_id": plan_id, "ready": {"$ne": True}}
        found = await self._segments.find_all(held_back, {"no": 1, "lines": 1, "bytes": 1}, sort=[("no", 1)])
        offered = [segment for segment in found if segment["no"] not in except_for]
        if len(offered) > _FEW:
            ids = [segment["_id"] for segment in offered]
            await self._segments.update_many({"_id": {"$in": ids}}, _READY)
        else:
            await asyncio.gather(
                *(self._segments.update_one({"_id": segment["_id"]}, _READY) for segment in offered)
            )
        return offered

    async def count_open(self, batch_id: str, plan_id: str) -> int:
        """Segments without a durable manifest."""
        return await self._segments.count(
            {"batch_id": batch_id, "plan_id": plan_id, "state": {"$nin": _WRITTEN}}
        )

    async def written(self, batch_id: str, plan_id: str) -> list[Document]:
        """{no, lines, manifest, counts, usage} of every written segment, in line order."""
        return await self._segments.find_all(
            {"batch_id": batch_id, "plan_id": plan_id, "state": {"$in": _WRITTEN}},
            {"no": 1, "lines": 1, "manifest": 1, "counts": 1, "usage": 1},
            sort=[("no", 1)],
        )


class PlannedLines:
    """Reads a plan's line index, no more of it than the segments in question cover."""

    def __init__(self, mongo: Mongo, blobs: BlobStore) -> None:
        self._segments = mongo.collection("segments")
        self._blobs = blobs

    async def read(self, index_blob: str, batch_id: str, plan_id: str, segments: Iterable[int]) -> bytes:
        """The packed input index from the first to the last of `segments`, all between them included."""
        rows = await self._segments.find_all(
            {"batch_id": batch_id, "plan_id": plan_id, "no": {"$in": sorted(segments)}},
            {"index_from": 1, "index_to": 1},
        )
        if not rows:
            return b""
        first = min(row["index_from"] for row in rows)
        last = max(row["index_to"] for row in rows)
        return await self._blobs.read_bytes(
            index_blob, first * INPUT_ENTRY_BYTES, (last - first) * INPUT_ENTRY_BYTES
        )

    async def starts(self, batch_id: str, plan_id: str, segments: Iterable[int]) -> list[tuple[int, int]]:
        """(first line, number) of each of `segments`, in line order."""
        rows = await self._segments.find_all(
            {"batch_id": batch_id, "plan_id": plan_id, "no": {"$in": sorted(segments)}},
            {"first_line": 1, "no": 1},
            sort=[("no", 1)],
        )
        return [(row["first_line"], row["no"]) for row in rows]
