"""200 MB of content out of the API; 1 MB ranges; sixteen readers that are slow."""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import psutil
from pymongo import MongoClient

from benchmarks.data import write_chat_file
from benchmarks.harness import Options, Outcome
from benchmarks.raw import find_rate
from benchmarks.system import System, running_system

LINE_BYTES = 1_200
READERS = 16
_SLOW_PIECE = 64 * 1024
_SLOW_PAUSE = 0.03
_SLOW_SECONDS = 5.0


async def run(options: Options) -> Outcome:
    lines = 2_000 if options.small else 170_000
    outcome = Outcome("download", "MB/s")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "download.jsonl"
        size = write_chat_file(path, lines, LINE_BYTES)
        async with running_system() as system:
            file_id = await system.upload(path)
            blob = _blob_of(system, file_id)
            await _whole(system, file_id, size)
            for number in range(1, options.rounds + 1):
                rate = await _whole(system, file_id, size)
                limit = await asyncio.to_thread(
                    find_rate,
                    system.credentials["mongo_uri"],
                    system.credentials["mongo_database"],
                    blob,
                    size,
                )
                outcome.values.append(rate)
                outcome.limits.append(limit)
                rows.append((number, round(rate), round(limit), round(rate / limit, 2)))
            outcome.details["range_p50_ms"] = round(await _ranges(system, file_id, size), 2)
            slow = await _slow_readers(system, file_id, 1.0 if options.small else _SLOW_SECONDS)
            outcome.details["rss_mb_per_slow_reader"] = round(slow, 2)
    outcome.tables.append((("round", "MB/s", "raw find MB/s", "ratio"), rows))
    outcome.details["bytes"] = size
    return outcome


def _blob_of(system: System, file_id: str) -> str:
    with MongoClient[dict[str, object]](system.credentials["mongo_uri"]) as client:
        found = client[system.credentials["mongo_database"]].files.find_one({"_id": file_id})
        return str(found["ranges"][0]["blob"])  # type: ignore[index]


def _content(system: System, file_id: str) -> str:
    return f"{system.credentials['base_url']}/files/{file_id}/content"


async def _whole(system: System, file_id: str, size: int) -> float:
    """MB/s of one download."""
    started, found = time.monotonic(), 0
    async with system.session.get(_content(system, file_id)) as answer:
        async for piece in answer.content.iter_any():
            found += len(piece)
    if found != size:
        raise RuntimeError(f"{found} of {size} bytes")
    return size / (time.monotonic() - started) / 1e6


async def _ranges(system: System, file_id: str, size: int, times: int = 50) -> float:
    """Median milliseconds of a range of one MB."""
    taken = []
    length = min(1_000_000, size // 2)
    for number in range(times):
        first = number * 7_919_113 % (size - length)
        started = time.monotonic()
        headers = {"Range": f"bytes={first}-{first + length - 1}"}
        async with system.session.get(_content(system, file_id), headers=headers) as answer:
            body = await answer.read()
        if answer.status != 206 or len(body) != length:
            raise RuntimeError(f"{answer.status}, {len(body)} bytes")
        taken.append((time.monotonic() - started) * 1000)
    return statistics.median(taken)


async def _slow_readers(system: System, file_id: str, seconds: float) -> float:
    """MB of resident memory the API holds for each of sixteen readers of 2 MB/s."""
    before = psutil.Process(system.processes()["floopy-api"]).memory_info().rss

    async def read() -> None:
        async with system.session.get(_content(system, file_id)) as answer:
            until = time.monotonic() + seconds
            while time.monotonic() < until and await answer.content.read(_SLOW_PIECE):
                await asyncio.sleep(_SLOW_PAUSE)
            answer.close()

    async with system.watched() as usage:
        await asyncio.gather(*(read() for _ in range(READERS)))
    return (usage["floopy-api"].peak_rss - before) / 1e6 / READERS
