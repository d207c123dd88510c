"""Scratch space is a cache: whatever happens to it, the archived bytes come back or an error does."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from threading import Event

import pytest

from floopy_common.chassis.mongo import Mongo
from floopy_common.domain.errors import BlobCorrupt, BlobMissing
from floopy_common.providers.port import ResultStream, Unavailable
from floopy_common.stores.blobs import BlobStore
from floopy_reconciler.adapters.archives import ScratchArchives
from floopy_reconciler.errors import ResultsTooLarge

MIB = 1024 * 1024


def make_stream(*chunks: bytes, length: int | None = None, fails: bool = False) -> ResultStream:
    async def flow() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk
        if fails:
            raise Unavailable("the connection broke")

    return ResultStream(length, flow())


def unread(block: bytes) -> None:
    """What arrives is not looked at."""


@pytest.fixture
def archives(mongo: Mongo, tmp_path: Path) -> ScratchArchives:
    return ScratchArchives(tmp_path / "scratch", BlobStore(mongo), max_result=8 * MIB, max_total=100 * MIB)


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "scratch").iterdir())


async def test_download_becomes_a_pinned_blob_and_stays_at_hand(
    archives: ScratchArchives, mongo: Mongo, tmp_path: Path
) -> None:
    data = os.urandom(3 * MIB)
    download = await archives.receive(
        make_stream(data[:MIB], data[MIB:], length=len(data)), "batch_1", unread
    )

    blob_id = await download.keep()
    await download.drop()

    assert files(tmp_path) == [blob_id]
    blob = await mongo.collection("blobs").find_one({"_id": blob_id})
    assert blob is not None
    assert (blob["kind"], blob["pins"], blob["length"]) == ("archive", ["batch_1"], len(data))
    async with archives.open(blob_id) as view:
        assert view.read(0, len(view)) == data


@pytest.mark.parametrize("length", [2, 4])
async def test_download_of_another_length_than_announced_is_none(
    archives: ScratchArchives, tmp_path: Path, length: int
) -> None:
    with pytest.raises(Unavailable):
        await archives.receive(make_stream(b"abc", length=length), "batch_1", unread)

    assert files(tmp_path) == []


async def test_broken_download_leaves_nothing(
    archives: ScratchArchives, mongo: Mongo, tmp_path: Path
) -> None:
    with pytest.raises(Unavailable):
        await archives.receive(make_stream(b"x" * 3 * MIB, fails=True), "batch_1", unread)

    assert files(tmp_path) == []
    assert await mongo.collection("blob_chunks").count({}) == 0


async def test_what_is_not_kept_leaves_nothing_and_what_is_kept_stays(
    archives: ScratchArchives, mongo: Mongo, tmp_path: Path
) -> None:
    data = os.urandom(3 * MIB)
    unwanted = await archives.receive(make_stream(data), "batch_1", unread)
    wanted = await archives.receive(make_stream(data), "batch_1", unread)
    kept = await wanted.keep()

    await unwanted.drop()
    await wanted.drop()

    assert files(tmp_path) == [kept]
    assert [blob["_id"] for blob in await mongo.collection("blobs").find_all({})] == [kept]
    assert await mongo.collection("blob_chunks").count({}) == 13


async def test_download_that_never_ends_is_cut_off(archives: ScratchArchives, tmp_path: Path) -> None:
    with pytest.raises(ResultsTooLarge):
        await archives.receive(make_stream(*[b"x" * MIB] * 10), "batch_1", unread)

    assert files(tmp_path) == []


async def test_the_next_piece_arrives_while_one_is_read_and_stored(archives: ScratchArchives) -> None:
    going_on = Event()

    async def flow() -> AsyncIterator[bytes]:
        yield b"x" * 2 * MIB
        going_on.set()
        yield b"y"

    def read(block: bytes) -> None:
        assert going_on.wait(30)

    await archives.receive(ResultStream(2 * MIB + 1, flow()), "batch_1", read)


async def test_what_cannot_be_read_leaves_nothing(archives: ScratchArchives, tmp_path: Path) -> None:
    def read(block: bytes) -> None:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        await archives.receive(make_stream(*[b"x" * 2 * MIB] * 3), "batch_1", read)

    assert files(tmp_path) == []


async def test_lost_scratch_is_fetched_again(archives: ScratchArchives, tmp_path: Path) -> None:
    download = await archives.receive(make_stream(b"results\n"), "batch_1", unread)
    blob_id = await download.keep()
    (tmp_path / "scratch" / blob_id).unlink()

    async with archives.open(blob_id) as view:
        assert view.read(0, len(view)) == b"results\n"
    assert files(tmp_path) == [blob_id]


@pytest.mark.parametrize("damaged", [b"short", b"RESULTS\n"])
async def test_damaged_scratch_of_another_process_is_not_believed(
    archives: ScratchArchives, mongo: Mongo, tmp_path: Path, damaged: bytes
) -> None:
    download = await archives.receive(make_stream(b"results\n"), "batch_1", unread)
    blob_id = await download.keep()
    (tmp_path / "scratch" / blob_id).write_bytes(damaged)
    restarted = ScratchArchives(tmp_path / "scratch", BlobStore(mongo), max_result=MIB, max_total=MIB)

    async with restarted.open(blob_id) as view:
        assert view.read(0, len(view)) == b"results\n"


async def test_unknown_blob_is_missing(archives: ScratchArchives) -> None:
    with pytest.raises(BlobMissing):
        async with archives.open("blob_unknown"):
            pass


async def test_empty_results_are_empty(archives: ScratchArchives) -> None:
    download = await archives.receive(make_stream(length=0), "batch_1", unread)

    async with archives.open(await download.keep()) as view:
        assert (len(view), view.read(0, 0)) == (0, b"")


async def test_whoever_reads_along_gets_all_bytes_in_their_order(archives: ScratchArchives) -> None:
    data = os.urandom(5 * MIB + 7)
    chunks = [data[at : at + 300_000] for at in range(0, len(data), 300_000)]
    seen: list[bytes] = []

    await archives.receive(make_stream(*chunks, length=len(data)), "batch_1", seen.append)

    assert b"".join(seen) == data
    assert max(len(block) for block in seen) < 2 * MIB


async def test_who_cannot_read_along_stops_the_download(archives: ScratchArchives, tmp_path: Path) -> None:
    def fails(block: bytes) -> None:
        raise RecursionError

    with pytest.raises(RecursionError):
        await archives.receive(make_stream(b"x" * 3 * MIB), "batch_1", fails)

    assert files(tmp_path) == []


async def test_what_an_archive_does_not_hold_cannot_be_read(archives: ScratchArchives) -> None:
    download = await archives.receive(make_stream(b"results\n"), "batch_1", unread)

    async with archives.open(await download.keep()) as view:
        assert view.read(3, 5) == b"ults\n"
        with pytest.raises(BlobCorrupt):
            view.read(3, 6)


async def test_scratch_keeps_to_its_bound_and_what_is_open_stays_readable(
    mongo: Mongo, tmp_path: Path
) -> None:
    archives = ScratchArchives(tmp_path / "scratch", BlobStore(mongo), max_result=MIB, max_total=2 * MIB)
    first = await (await archives.receive(make_stream(b"a" * MIB), "batch_1", unread)).keep()
    os.utime(tmp_path / "scratch" / first, (1, 1))
    async with archives.open(first) as view:
        os.utime(tmp_path / "scratch" / first, (1, 1))
        for letter in (b"b", b"c", b"d"):
            await (await archives.receive(make_stream(letter * MIB), "batch_1", unread)).keep()

        assert first not in files(tmp_path)
        assert sum(path.stat().st_size for path in (tmp_path / "scratch").iterdir()) <= 2 * MIB
        assert view.read(0, MIB) == b"a" * MIB
    async with archives.open(first) as view:
        assert view.read(0, 3) == b"aaa"


async def test_what_a_dead_process_was_writing_goes(archives: ScratchArchives, tmp_path: Path) -> None:
    left = tmp_path / "scratch" / "left.part"
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    fresh = tmp_path / "scratch" / "fresh.part"
    fresh.write_bytes(b"half")

    await (await archives.receive(make_stream(b"x"), "batch_1", unread)).keep()

    assert not left.exists()
    assert fresh.exists()
