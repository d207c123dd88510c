"""Blobs: immutable bytes in chunk documents, streamed in and out with bounded memory."""

import asyncio
import hashlib
import logging
import time
from bisect import bisect_left
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import Any

from floopy_common.chassis.clock import Clock, SystemClock
from floopy_common.chassis.mongo import DatabaseError, Document, Mongo
from floopy_common.chassis.pipelines import assign
from floopy_common.domain.errors import BlobCorrupt, BlobMissing
from floopy_common.domain.ids import new_blob_id
from floopy_common.stores.read_ahead import READ_BATCH, Pace, QuickSeats, in_batches, pace_among

logger = logging.getLogger(__name__)

CHUNK_SIZE = 255 * 1024
"""Small chunks make a Range cheap; up to 2 MiB they cost nothing in throughput."""

CHUNKS_PER_INSERT = 8
"""Just under 2 MiB a call: larger ones are no faster and cost memory per upload."""

INSERTS_IN_FLIGHT = 2
"""One insert travels while the next is prepared; a third only adds memory."""

READ_AT_ONCE = 16 * 1024 * 1024
"""What the database answers with at most: one round trip for any range that is read in one piece."""

BytesLike = bytes | bytearray | memoryview


class BlobState(StrEnum):
    """`live` blobs may be pinned and read; the other two are the sweeper's."""

    LIVE = "live"
    CONDEMNED = "condemned"
    DELETING = "deleting"


@dataclass(frozen=True)
class Blob:
    """A published blob: `length` in bytes, `sha256` as hex."""

    id: str
    length: int
    sha256: str


def chunk_id(blob_id: str, number: int) -> str:
    """Key of a chunk: zero-padded, so that key order is byte order."""
    return f"{blob_id}:{number:06d}"


def chunks_of(blob_id: str) -> Document:
    """The filter for every chunk of a blob."""
    return {"_id": {"$gte": f"{blob_id}:", "$lt": f"{blob_id};"}}


class BlobWriter:
    """Takes the bytes of one blob; made by `BlobStore.writer`, which publishes or discards it."""

    def __init__(self, mongo: Mongo, kind: str, pins: Iterable[str], chunk_size: int, clock: Clock) -> None:
        self.id = new_blob_id()
        self._blobs = mongo.collection("blobs")
        self._chunks = mongo.collection("blob_chunks")
        self._kind = kind
        self._pins = list(pins)
        self._chunk_size = chunk_size
        self._clock = clock
        self._digest = hashlib.sha256()
        self._partial: list[bytes | memoryview] = []
        self._held = 0
        """Bytes in `_partial`: what no chunk has yet."""
        self._pending: list[Document] = []
        self._inserts: set[asyncio.Task[None]] = set()
        self._stored = 0
        self._count = 0
        self._failure: BaseException | None = None
        self._publishing = False
        self._blob: Blob | None = None

    @property
    def length(self) -> int:
        """Bytes taken so far."""
        return self._stored + self._held

    @property
    def blob(self) -> Blob:
        """What was published; RuntimeError before the writer was left without an error."""
        if self._blob is None:
            raise RuntimeError("the blob is not published yet")
        return self._blob

    async def write(self, data: BytesLike) -> None:
        """Take bytes of any size; those that can change are copied. Waits while two inserts are on their way.

        Raises what an earlier insert failed with: such a blob cannot be published any more.
        """
        await self.write_all([data if isinstance(data, bytes) else bytes(data)])

    async def write_all(self, pieces: Sequence[bytes]) -> None:
        """The same of many pieces: each is copied once, into its chunk."""
        self._partial += pieces
        self._held += sum(map(len, pieces))
        while self._held >= self._chunk_size:
            self._cut_chunk()
            if len(self._pending) == CHUNKS_PER_INSERT:
                await self._insert_pending()

    def _cut_chunk(self) -> None:
        data = self._first(min(self._held, self._chunk_size))
        self._pending.append({"_id": chunk_id(self.id, self._count), "data": data, "at": self._clock.now()})
        self._count += 1
        self._stored += len(data)

    def _first(self, size: int) -> bytes:
        """Take so many bytes out of those held."""
        ends = list(accumulate(map(len, self._partial)))
        at = bisect_left(ends, size)
        last, cut = memoryview(self._partial[at]), len(self._partial[at]) - (ends[at] - size)
        data = b"".join((*self._partial[:at], last[:cut]))
        self._partial[: at + 1] = [last[cut:]] if cut < len(last) else []
        self._held -= size
        return data

    async def _insert_pending(self) -> None:
        while len(self._inserts) >= INSERTS_IN_FLIGHT:
            await self._settle_inserts(asyncio.FIRST_COMPLETED)
        pending, self._pending = self._pending, []
        self._inserts.add(asyncio.create_task(self._insert(pending)))
        if len(pending) == CHUNKS_PER_INSERT:
            # beside the event loop, while the insert is on its way: it takes a millisecond or more
            await asyncio.to_thread(self._digest_of, pending)
        else:
            self._digest_of(pending)

    async def _insert(self, chunks: list[Document]) -> None:
        if len(chunks) > 1:
            await self._chunks.insert_many(chunks)
        # a small blob's only chunk travels with those of others
        elif not await self._chunks.insert_new(chunks[0]):
            raise BlobCorrupt(f"{chunks[0]['_id']} is somebody else's")

    def _digest_of(self, chunks: list[Document]) -> None:
        for chunk in chunks:
            self._digest.update(chunk["data"])

    async def _settle_inserts(self, until: str) -> None:
        if self._inserts:
            done, self._inserts = await asyncio.wait(self._inserts, return_when=until)
            failures = [failure for insert in done if (failure := insert.exception()) is not None]
            self._failure = self._failure or next(iter(failures), None)
        if self._failure is not None:
            raise self._failure

    async def publish(self) -> None:
        """Store the rest, then the blob's document: from that write on the blob exists."""
        if self._held:
            self._cut_chunk()
        if self._pending:
            await self._insert_pending()
        await self._settle_inserts(asyncio.ALL_COMPLETED)
        blob = Blob(self.id, self._stored, self._digest.hexdigest())
        document = {
            "kind": self._kind,
            "length": blob.length,
            "sha256": blob.sha256,
            "chunk_size": self._chunk_size,
            "chunks": self._count,
            "pins": self._pins,
            "state": BlobState.LIVE.value,
        }
        self._publishing = True
        # The filter matches nothing that exists: a document of this id can only be the sweeper's tombstone.
        unswept = {"_id": self.id, "state": {"$exists": False}}
        if not await self._blobs.upsert(unswept, [assign(document, now=["created_at"])]):
            raise BlobMissing(f"{self.id} took longer to write than the sweeper waits")
        self._blob = blob

    async def discard(self) -> None:
        """Remove what was stored, once no insert is on its way any more.

        Not after a publication was tried: whether it happened is unknown then, and only the sweeper can tell.
        """
        self._pending = []
        if self._inserts:
            await asyncio.gather(*self._inserts, return_exceptions=True)
        if self._publishing or not self._count:
            return
        try:
            await self._chunks.delete_many(chunks_of(self.id))
        except DatabaseError as error:
            logger.warning(
                "chunks stay until they are swept",
                extra={"event": "blob_discard_failed", "blob_id": self.id, "cause": str(error)},
            )


class BlobStore:
    """Writes, reads and pins blobs; only the sweeper deletes them."""

    def __init__(self, mongo: Mongo, *, chunk_size: int = CHUNK_SIZE, clock: Clock | None = None) -> None:
        self._mongo = mongo
        self._blobs = mongo.collection("blobs")
        self._chunks = mongo.collection("blob_chunks")
        self._chunk_size = chunk_size
        self._clock = clock or SystemClock()

    @asynccontextmanager
    async def writer(self, kind: str, pins: Iterable[str] = ()) -> AsyncIterator[BlobWriter]:
        """A writer whose blob is visible, whole, after a clean exit, and leaves no chunks after any other."""
        writer = BlobWriter(self._mongo, kind, pins, self._chunk_size, self._clock)
        try:
            yield writer
            await writer.publish()
        except BaseException:
            await _to_the_end(writer.discard())
            raise

    async def put(self, kind: str, data: BytesLike, pins: Iterable[str] = ()) -> Blob:
        """Write a whole blob."""
        async with self.writer(kind, pins) as writer:
            await writer.write(data)
        return writer.blob

    async def stat(self, blob_id: str) -> Blob | None:
        """The blob, unless it is missing or about to go."""
        found = await self._live(blob_id)
        return None if found is None else Blob(blob_id, found["length"], found["sha256"])

    async def pin(self, blob_id: str, batch_id: str) -> bool:
        """Keep a live blob for a batch; False when there is none. Repeating is harmless."""
        live = {"_id": blob_id, "state": BlobState.LIVE.value}
        return await self._blobs.update_one(live, {"$addToSet": {"pins": batch_id}}) == 1

    async def pin_all(self, blob_ids: Iterable[str], batch_id: str) -> bool:
        """Keep live blobs for a batch by one call, however many; False when one of them is not there, and the
        others may be pinned then. Repeating is harmless.
        """
        wanted = sorted(set(blob_ids))
        if len(wanted) == 1:
            return await self.pin(wanted[0], batch_id)  # drivers repeat an update of one by themselves
        live = {"_id": {"$in": wanted}, "state": BlobState.LIVE.value}
        return await self._blobs.update_many(live, {"$addToSet": {"pins": batch_id}}) == len(wanted)

    async def unpin(self, batch_id: str) -> int:
        """Let go of every blob a batch kept; how many that were."""
        return await self._blobs.update_many({"pins": batch_id}, {"$pull": {"pins": batch_id}})

    async def read(
        self,
        blob_id: str,
        offset: int = 0,
        length: int | None = None,
        batch_bytes: int = READ_BATCH,
        pace: Pace | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """The bytes from `offset`, `length` of them (None: to the end), in pieces of at most one chunk.

        `batch_bytes` are asked of the database at once, or as many as the reader's `pace` has it.
        Raises BlobMissing without a live blob, BlobCorrupt when the range or a chunk is not all there.
        """
        found = await self._live(blob_id)
        if found is None:
            raise BlobMissing(blob_id)
        end = found["length"] if length is None else offset + length
        if not 0 <= offset <= end <= found["length"]:
            raise BlobCorrupt(f"{blob_id} has {found['length']} bytes; {offset} to {end} were asked for")
        if offset < end:
            pace = pace or Pace(batch_bytes)
            async with aclosing(self._read_chunks(found, offset, end, pace)) as pieces:
                async for piece in pieces:
                    yield piece

    async def _read_chunks(
        self, blob: Document, offset: int, end: int, pace: Pace
    ) -> AsyncGenerator[bytes, None]:
        size = blob["chunk_size"]
        number, last = offset // size, (end - 1) // size
        async with aclosing(self._find_chunks(blob, number, last, pace)) as chunks:
            async for chunk in chunks:
                start = number * size
                _check_chunk(blob, number, chunk)
                piece = _cut(chunk["data"], offset - start, end - start)
                handed_out = time.monotonic()
                yield piece
                pace.taken(len(piece), time.monotonic() - handed_out)
                number += 1
        if number != last + 1:
            raise BlobCorrupt(f"chunk {number} of {blob['_id']} is missing")

    async def _find_chunks(
        self, blob: Document, number: int, last: int, pace: Pace
    ) -> AsyncGenerator[Document, None]:
        """Those that are there, by one cursor for as long as the reader keeps its pace."""
        if number == last:
            # the only one is found together with those that others look for
            only = await self._chunks.find_one({"_id": chunk_id(blob["_id"], number)}, {"data": 1})
            if only is not None:
                yield only
            return
        while number <= last:
            quick, left = pace.quick, last + 1 - number
            count = max(1, pace.batch_bytes // blob["chunk_size"])
            if left == count + 1:
                count = left  # a range of a mebibyte touches a chunk more: not worth a call
            wanted = {"_id": {"$gte": chunk_id(blob["_id"], number), "$lte": chunk_id(blob["_id"], last)}}
            found = self._chunks.find(wanted, {"data": 1}, sort=[("_id", 1)], limit=left, batch_size=count)
            async with aclosing(in_batches(found, count, ahead=quick)) as batches:
                async for batch in batches:
                    batch.reverse()
                    while batch:
                        yield batch.pop()
                        number += 1
                    if pace.quick != quick:
                        break
                else:
                    return

    async def read_bytes(self, blob_id: str, offset: int = 0, length: int | None = None) -> bytes:
        """The same in one piece, asked for at once: for what is known to be small."""
        async with aclosing(self.read(blob_id, offset, length, READ_AT_ONCE)) as pieces:
            return b"".join([piece async for piece in pieces])

    async def _live(self, blob_id: str) -> Document | None:
        wanted = {"_id": blob_id, "state": BlobState.LIVE.value}
        return await self._blobs.find_one(wanted, {"length": 1, "sha256": 1, "chunk_size": 1})


class FileReader:
    """Reads a file, which is an ordered list of blob ranges `{blob, offset, length}`.

    With `seats`, who reads quickly takes one and has the next bytes read ahead.
    """

    def __init__(self, blobs: BlobStore, seats: QuickSeats | None = None) -> None:
        self._blobs = blobs
        self._seats = seats

    async def read_ranges(
        self,
        ranges: Iterable[Mapping[str, Any]],
        offset: int = 0,
        length: int | None = None,
        batch_bytes: int = READ_BATCH,
    ) -> AsyncGenerator[bytes, None]:
        """The file's bytes from `offset`, at most `length` of them; what lies behind its end is not there."""
        with pace_among(self._seats, batch_bytes) as pace:
            for blob, start, taken in _spans(ranges, offset, length):
                async with aclosing(self._blobs.read(blob, start, taken, pace=pace)) as pieces:
                    async for piece in pieces:
                        yield piece


def _spans(
    ranges: Iterable[Mapping[str, Any]], offset: int, length: int | None
) -> Iterator[tuple[str, int, int]]:
    """What of each blob makes up these bytes of the file: the blob, from where, how many."""
    skip = offset
    left = length
    for part in ranges:
        if left == 0:
            return
        available = part["length"] - skip
        if available <= 0:
            skip = -available
            continue
        taken = available if left is None else min(available, left)
        yield part["blob"], part["offset"] + skip, taken
        skip = 0
        left = None if left is None else left - taken


def _check_chunk(blob: Document, number: int, chunk: Document) -> None:
    expected = min(blob["chunk_size"], blob["length"] - number * blob["chunk_size"])
    if chunk["_id"] != chunk_id(blob["_id"], number):
        raise BlobCorrupt(f"chunk {number} of {blob['_id']} is missing")
    if len(chunk["data"]) != expected:
        raise BlobCorrupt(f"chunk {number} of {blob['_id']} has {len(chunk['data'])} of {expected} bytes")


def _cut(data: bytes, start: int, end: int) -> bytes:
    """`data[start:end]` with a start that may be negative; `data` itself where nothing is cut off."""
    return data if start <= 0 and end >= len(data) else data[max(start, 0) : end]


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Finish `work` even if this task is cancelled meanwhile; the cancellation is raised afterwards."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
