"""Segments while they are written and emitted: claimed in turn between batches, every write fenced."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
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
from floopy_common.chassis.mongo import Document, Mongo, Sort
from floopy_common.chassis.pipelines import FREE_LEASE, assign, expire_in
from floopy_common.domain.errors import LeaseLost
from floopy_common.domain.index import INPUT_ENTRY_BYTES
from floopy_common.domain.segment import SegmentState
from floopy_common.stores.blobs import BlobStore, FileReader

_UNFINISHED = [SegmentState.OPEN.value, SegmentState.WRITTEN.value]
_RETRY_DUE: Document = {"$expr": {"$lte": [{"$ifNull": ["$retry_at", None]}, "$$NOW"]}}
_OF_SHARDS = dict.fromkeys(
    (
        "no",
        "depth",
        "group",
        "provider",
        "provider_batch_id",
        "ranges",
        "state",
        "ended",
        "ended_at",
        "submitted_at",
        "archive",
        "refused",
    ),
    1,
)


class SegmentHold:
    """A segment that this worker alone writes and emits; after a lost lease every call raises LeaseLost."""

    def __init__(self, segments: "SegmentStore", segment: Document, live: LiveLease) -> None:
        self.segment = segment
        self._segments = segments
        self._live = live

    async def written(self, manifest: Document, counts: Mapping[str, int], usage: Mapping[str, int]) -> None:
        """The parts are durable: from now on the segment's lines are answered. The hold goes on."""
        await self._write(
            SegmentState.OPEN,
            [
                assign(
                    {
                        "state": SegmentState.WRITTEN.value,
                        "manifest": manifest,
                        "counts": dict(counts),
                        "usage": dict(usage),
                    }
                ),
                no_deaths(),
            ],
        )

    async def emitted(self, partition: int, first_offset: int, last_offset: int) -> None:
        """Every event is acknowledged; the hold ends."""
        times = {"$add": [{"$ifNull": ["$emitted.times", 0]}, 1]}
        place = {
            "emitted.partition": partition,
            "emitted.first_offset": first_offset,
            "emitted.last_offset": last_offset,
            "state": SegmentState.EMITTED.value,
            "failures": 0,
            "retry_at": None,
        }
        await self._let_go(
            SegmentState.WRITTEN,
            [assign(place, now=["emitted.at"], raw={"emitted.times": times}), no_deaths()],
        )

    async def give_back(self, delay: float, *, failed: bool) -> None:
        """Leave the rest to whoever claims it in `delay` seconds; the hold ends."""
        failures: Document = {"failures": {"$add": [{"$ifNull": ["$failures", 0]}, 1]}} if failed else {}
        await self._let_go(None, [assign(raw={"retry_at": expire_in(delay), **failures})])

    async def _let_go(self, state: SegmentState | None, stages: list[Document]) -> None:
        with self._live.letting_go():
            await self._write(state, [*stages, release_stage()])

    async def _write(self, state: SegmentState | None, stages: list[Document]) -> None:
        criteria: Document = {"_id": self.segment["_id"], **self._live.held()}
        if state is not None:
            criteria["state"] = state.value
        if not await self._segments.write(criteria, stages):
            raise LeaseLost(self.segment["_id"])


class SegmentClaim:
    """A segment just claimed; nobody renews its lease before `hold` is entered."""

    def __init__(self, segments: "SegmentStore", segment: Document, lease: Lease) -> None:
        self.segment = segment
        self._segments = segments
        self._lease = lease

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[SegmentHold]:
        """Renews the lease while the body runs; LeaseLost stops the body."""
        async with self._segments.renewing(self.segment["_id"], self._lease) as live:
            yield SegmentHold(self._segments, self.segment, live)


class SegmentStore:
    """The collection `segments`, from `ready` until emitted."""

    def __init__(self, mongo: Mongo, owner: str, lease_ttl: float) -> None:
        self._segments = mongo.collection("segments")
        self._shards = mongo.collection("shards")
        self._owner = owner
        self._ttl = lease_ttl

    async def claim(self, states: Collection[SegmentState], after: str) -> SegmentClaim | None:
        """The next segment to write or emit, of the first batch behind `after` that has one, then around.

        Batches thus take turns, whatever their size; within a batch the first segment comes first.
        """
        ahead, behind = {"batch_id": {"$gt": after}}, {"batch_id": {"$lte": after}}
        for turn in (ahead, behind) if after else (ahead,):
            claim = await self._claim(turn, states, sort=[("batch_id", 1), ("no", 1)])
            if claim is not None:
                return claim
        return None

    async def claim_one(self, segment_id: str, states: Collection[SegmentState]) -> SegmentClaim | None:
        """The segment, if it may be claimed."""
        return await self._claim({"_id": segment_id}, states)

    async def _claim(
        self, which: Document, states: Collection[SegmentState], sort: Sort | None = None
    ) -> SegmentClaim | None:
        lease = new_lease(self._owner, self._ttl)
        found = await self._segments.find_and_update(
            {
                **which,
                "ready": True,
                # the index covers exactly this list, so the wanted states come as a second condition
                "state": {"$in": _UNFINISHED},
                "$and": [{"state": {"$in": [s.value for s in states]}}, FREE_LEASE, _RETRY_DUE],
            },
            [death_stage(), claim_stage(lease, self._ttl)],
            sort=sort,
            durable=False,
        )
        return None if found is None else SegmentClaim(self, found, lease)

    async def shards_of(self, segment: Document) -> list[Document]:
        """Every shard of the plan that has lines in the segment, as far as rendering needs them."""
        return await self._shards.find_all(
            {
                "batch_id": segment["batch_id"],
                "plan_id": segment["plan_id"],
                "segments": segment["no"],
            },
            _OF_SHARDS,
        )

    def renewing(self, segment_id: str, lease: Lease) -> AbstractAsyncContextManager[LiveLease]:
        return renewing(self._segments, segment_id, lease, self._ttl)

    async def write(self, criteria: Mapping[str, Any], stages: list[Document]) -> bool:
        return await self._segments.update_one(criteria, stages) == 1


class SegmentInputs:
    """The stored bytes a segment is rendered from."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._files = FileReader(blobs)

    async def index(self, index_blob: str, first: int, stop: int) -> bytes:
        """Entries `first` to `stop` (exclusive) of a plan's line index, packed."""
        return await self._blobs.read_bytes(
            index_blob, first * INPUT_ENTRY_BYTES, (stop - first) * INPUT_ENTRY_BYTES
        )

    async def read(self, ranges: Iterable[Mapping[str, Any]], offset: int, length: int) -> bytes:
        """`length` bytes of the input file from `offset`."""
        async with aclosing(self._files.read_ranges(ranges, offset, length)) as pieces:
            return b"".join([piece async for piece in pieces])
