"""Blobs against a real replica set: whole or not there, any range, nothing left behind."""

import asyncio
import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from floopy_common.chassis.mongo import Collection, Mongo
from floopy_common.domain.errors import BlobCorrupt, BlobMissing
from floopy_common.stores.blobs import CHUNK_SIZE, Blob, BlobStore, FileReader, chunk_id
from floopy_common.stores.read_ahead import Pace

SMALL = 64
"""A chunk size that makes many chunks of little data."""


@pytest.fixture
def store(mongo: Mongo) -> BlobStore:
    return BlobStore(mongo, chunk_size=SMALL)


async def stored(mongo: Mongo) -> tuple[int, int]:
    """How many blob documents and chunks there are."""
    return await mongo.collection("blobs").count({}), await mongo.collection("blob_chunks").count({})


@contextmanager
def inserts_replaced(monkeypatch: pytest.MonkeyPatch, replacement: Any) -> Iterator[None]:
    """Chunk inserts run `replacement(original, collection, documents)`."""
    original = Collection.insert_many

    async def insert_many(self: Collection, documents: Any) -> None:
        await replacement(original, self, documents)

    with monkeypatch.context() as patched:
        patched.setattr(Collection, "insert_many", insert_many)
        yield


async def test_a_large_blob_comes_back_as_it_was_written(mongo: Mongo) -> None:
    store = BlobStore(mongo)
    data = random.Random(1).randbytes(3 * 8 * CHUNK_SIZE + 12_345)
    pieces = [data[at : at + 65_536] for at in range(0, len(data), 65_536)]

    async with store.writer("input", pins=["batch_1"]) as writer:
        for number, piece in enumerate(pieces):
            await writer.write((bytes, bytearray, memoryview)[number % 3](piece))

    assert writer.blob == Blob(writer.id, len(data), hashlib.sha256(data).hexdigest())
    assert await store.read_bytes(writer.id) == data
    assert await store.stat(writer.id) == writer.blob
    assert await stored(mongo) == (1, 25)


async def test_one_write_may_be_larger_than_everything_in_flight(mongo: Mongo, store: BlobStore) -> None:
    data = random.Random(2).randbytes(100 * SMALL + 1)

    blob = await store.put("archive", data)

    assert await store.read_bytes(blob.id) == data
    assert await stored(mongo) == (1, 101)


async def test_what_the_caller_does_with_a_buffer_afterwards_does_not_matter(store: BlobStore) -> None:
    buffer = bytearray(b"a" * 100)

    async with store.writer("input") as writer:
        await writer.write(buffer)
        buffer[:] = b"b" * 100

    assert await store.read_bytes(writer.id) == b"a" * 100


async def test_many_pieces_fill_chunks_of_one_size(mongo: Mongo, store: BlobStore) -> None:
    chance = random.Random(7)
    lengths = [0, SMALL, 1, SMALL - 1, 3 * SMALL, 0, *(chance.randrange(2 * SMALL) for _ in range(200)), 0]
    pieces = [chance.randbytes(length) for length in lengths]

    async with store.writer("part") as writer:
        for at in range(0, len(pieces), 9):
            await writer.write_all(pieces[at : at + 9])
            assert writer.length == sum(lengths[: at + 9])

    assert await store.read_bytes(writer.id) == b"".join(pieces)
    assert writer.blob.sha256 == hashlib.sha256(b"".join(pieces)).hexdigest()
    chunks = await mongo.collection("blob_chunks").find_all({}, {"data": 1}, [("_id", 1)])
    assert {len(chunk["data"]) for chunk in chunks[:-1]} == {SMALL}


async def test_an_empty_blob_has_no_chunks(mongo: Mongo, store: BlobStore) -> None:
    blob = await store.put("error", b"")

    assert await store.read_bytes(blob.id) == b""
    assert blob == Blob(blob.id, 0, hashlib.sha256().hexdigest())
    assert await stored(mongo) == (1, 0)


async def test_a_blob_is_not_there_before_it_is_whole(mongo: Mongo, store: BlobStore) -> None:
    async with store.writer("input") as writer:
        await writer.write(b"x" * SMALL * 50)

        assert await store.stat(writer.id) is None
        assert (await stored(mongo))[0] == 0
        with pytest.raises(RuntimeError):
            _ = writer.blob

    assert await store.stat(writer.id) == writer.blob


async def test_an_error_in_the_writing_leaves_no_chunks(mongo: Mongo, store: BlobStore) -> None:
    with pytest.raises(ZeroDivisionError):
        async with store.writer("input") as writer:
            await writer.write(b"x" * SMALL * 50)
            raise ZeroDivisionError

    assert await stored(mongo) == (0, 0)


async def test_a_failed_insert_is_raised_and_leaves_no_chunks(
    mongo: Mongo, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    async def fail_third(original: Any, collection: Collection, documents: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise ConnectionError("gone")
        await original(collection, documents)

    with inserts_replaced(monkeypatch, fail_third), pytest.raises(ConnectionError):
        await store.put("input", b"x" * SMALL * 80)

    assert calls >= 3
    assert await stored(mongo) == (0, 0)


async def test_a_writer_whose_insert_failed_is_never_published(
    mongo: Mongo, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(original: Any, collection: Collection, documents: Any) -> None:
        raise ConnectionError("gone")

    with inserts_replaced(monkeypatch, fail), pytest.raises(ConnectionError):
        async with store.writer("input") as writer:
            with pytest.raises(ConnectionError):
                await writer.write(b"x" * SMALL * 80)

    assert await stored(mongo) == (0, 0)


async def test_a_cancelled_writer_waits_for_its_inserts_and_removes_them(
    mongo: Mongo, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def late(original: Any, collection: Collection, documents: Any) -> None:
        started.set()
        await go_on.wait()
        await original(collection, documents)

    with inserts_replaced(monkeypatch, late):
        task = asyncio.create_task(store.put("input", b"x" * SMALL * 80))
        await started.wait()
        task.cancel()
        await asyncio.wait([task], timeout=0.05)
        task.cancel()  # a second time, in the middle of the cleaning up
        await asyncio.wait([task], timeout=0.05)
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert await stored(mongo) == (0, 0)


async def test_at_most_two_inserts_are_in_flight(
    mongo: Mongo, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most = 0, 0

    async def count(original: Any, collection: Collection, documents: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await original(collection, documents)
        running -= 1

    with inserts_replaced(monkeypatch, count):
        await store.put("input", b"x" * SMALL * 100)

    assert most == 2


async def test_a_missing_chunk_is_corruption(mongo: Mongo, store: BlobStore) -> None:
    for missing in (0, 5, 9):
        blob = await store.put("input", b"x" * SMALL * 10)
        await mongo.collection("blob_chunks").delete_one({"_id": chunk_id(blob.id, missing)})

        with pytest.raises(BlobCorrupt, match=f"chunk {missing} "):
            await store.read_bytes(blob.id)


async def test_a_short_chunk_is_corruption(mongo: Mongo, store: BlobStore) -> None:
    blob = await store.put("input", b"x" * SMALL * 10)
    chunk = chunk_id(blob.id, 4)
    await mongo.collection("blob_chunks").update_one({"_id": chunk}, {"$set": {"data": b"x"}})

    with pytest.raises(BlobCorrupt, match="1 of 64"):
        await store.read_bytes(blob.id, SMALL * 4, 1)


async def test_an_unknown_blob_is_missing(store: BlobStore) -> None:
    with pytest.raises(BlobMissing):
        await store.read_bytes("blob_unknown")

    assert await store.stat("blob_unknown") is None


@pytest.mark.parametrize(("offset", "length"), [(0, 101), (101, None), (-1, 5), (50, 51), (50, -1)])
async def test_a_range_outside_the_blob_is_refused(store: BlobStore, offset: int, length: int | None) -> None:
    blob = await store.put("input", b"x" * 100)

    with pytest.raises(BlobCorrupt):
        await store.read_bytes(blob.id, offset, length)


async def test_a_reader_may_leave_early(store: BlobStore) -> None:
    blob = await store.put("input", b"x" * SMALL * 50)
    pieces = store.read(blob.id, batch_bytes=SMALL)

    assert await anext(pieces) == b"x" * SMALL
    await pieces.aclose()


async def test_pinning_needs_a_live_blob_and_repeats(mongo: Mongo, store: BlobStore) -> None:
    blob = await store.put("input", b"x", pins=["batch_1"])

    assert await store.pin(blob.id, "batch_2")
    assert await store.pin(blob.id, "batch_2")
    found = await mongo.collection("blobs").find_one({"_id": blob.id})
    assert found is not None
    assert found["pins"] == ["batch_1", "batch_2"]

    assert await store.unpin("batch_2") == 1
    await mongo.collection("blobs").update_one({"_id": blob.id}, {"$set": {"state": "condemned"}})
    assert not await store.pin(blob.id, "batch_3")
    assert not await store.pin("blob_unknown", "batch_3")


async def test_pinning_many_is_told_whole_only_when_every_one_is_live(mongo: Mongo, store: BlobStore) -> None:
    blobs = [(await store.put("input", b"x")).id for _ in range(3)]

    assert await store.pin_all(blobs, "batch_1")
    assert await store.pin_all([*blobs, blobs[0]], "batch_1")
    assert await mongo.collection("blobs").count({"pins": ["batch_1"]}) == 3

    assert not await store.pin_all([*blobs, "blob_unknown"], "batch_2")
    await mongo.collection("blobs").update_one({"_id": blobs[1]}, {"$set": {"state": "condemned"}})
    assert not await store.pin_all(blobs, "batch_2")


DATA = random.Random(3).randbytes(10 * SMALL + 17)
CUTS = st.tuples(st.integers(0, len(DATA)), st.integers(0, len(DATA))).map(sorted)


async def test_every_range_of_a_blob_is_what_the_bytes_say(store: BlobStore) -> None:
    blob = await store.put("input", DATA)
    loop = asyncio.get_running_loop()

    @given(cut=CUTS, batch_bytes=st.sampled_from([1, SMALL, 3 * SMALL, 1 << 20]))
    @settings(max_examples=150, deadline=None)
    def check(cut: list[int], batch_bytes: int) -> None:
        async def read() -> bytes:
            pieces = store.read(blob.id, cut[0], cut[1] - cut[0], batch_bytes)
            return b"".join([piece async for piece in pieces])

        assert asyncio.run_coroutine_threadsafe(read(), loop).result(10) == DATA[cut[0] : cut[1]]

    await asyncio.to_thread(check)


async def test_a_blob_is_the_same_whatever_pace_its_reader_falls_into(store: BlobStore) -> None:
    data = random.Random(4).randbytes(300 * SMALL + 5)
    blob = await store.put("input", data)

    class Fickle(Pace):
        @property
        @override
        def batch_bytes(self) -> int:
            return (7 if self.quick else 3) * SMALL

        @override
        def taken(self, size: int, seconds: float) -> None:
            self.quick = changes.random() < 0.5

    for seed in range(20):
        changes = random.Random(seed)
        pieces = store.read(blob.id, 7, len(data) - 9, pace=Fickle())
        assert b"".join([piece async for piece in pieces]) == data[7:-2]


async def test_a_chunk_that_goes_missing_is_told_at_any_pace(mongo: Mongo, store: BlobStore) -> None:
    blob = await store.put("input", DATA)
    await mongo.collection("blob_chunks").delete_many({"_id": chunk_id(blob.id, 10)})

    for quick in (False, True):
        pace = Pace(3 * SMALL)
        pace.quick = quick
        with pytest.raises(BlobCorrupt, match=r"chunk 10 .* is missing"):
            async for _ in store.read(blob.id, pace=pace):
                pass


async def test_every_range_of_a_file_is_what_its_bytes_say(store: BlobStore) -> None:
    blobs = [await store.put("output", DATA), await store.put("output", DATA[::-1])]
    sources = [DATA, DATA[::-1]]
    reader = FileReader(store)
    loop = asyncio.get_running_loop()

    @given(
        parts=st.lists(st.tuples(st.integers(0, 1), CUTS), max_size=5),
        offset=st.integers(0, 2 * len(DATA)),
        length=st.none() | st.integers(0, 2 * len(DATA)),
    )
    @settings(max_examples=150, deadline=None)
    def check(parts: list[tuple[int, list[int]]], offset: int, length: int | None) -> None:
        whole = b"".join(sources[which][cut[0] : cut[1]] for which, cut in parts)
        ranges = [
            {"blob": blobs[which].id, "offset": cut[0], "length": cut[1] - cut[0]} for which, cut in parts
        ]

        async def read() -> bytes:
            return b"".join([piece async for piece in reader.read_ranges(ranges, offset, length)])

        expected = whole[offset:] if length is None else whole[offset : offset + length]
        assert asyncio.run_coroutine_threadsafe(read(), loop).result(10) == expected

    await asyncio.to_thread(check)
