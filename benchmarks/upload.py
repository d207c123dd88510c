"""200 MB of JSONL through the API into storage, and the memory that costs it, alone and eight at once."""

import asyncio
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.data import write_chat_file
from benchmarks.harness import Options, Outcome
from benchmarks.raw import insert_rate
from benchmarks.system import System, running_system

LINE_BYTES = 1_200


async def run(options: Options) -> Outcome:
    lines = 2_000 if options.small else 170_000
    outcome = Outcome("upload", "MB/s")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "upload.jsonl"
        size = write_chat_file(path, lines, LINE_BYTES)
        async with running_system() as system:
            await system.upload(path)
            growth = await _growth(system, path, 1)
            for number in range(1, options.rounds + 1):
                started = time.monotonic()
                await system.upload(path)
                rate = size / (time.monotonic() - started) / 1e6
                limit = await asyncio.to_thread(insert_rate, system.credentials["mongo_uri"], size)
                outcome.values.append(rate)
                outcome.limits.append(limit)
                rows.append((number, round(rate), round(limit), round(rate / limit, 2)))
        async with running_system() as system:
            eight = await _growth(system, path, 8)
    outcome.tables.append((("round", "MB/s", "raw insert MB/s", "ratio"), rows))
    outcome.details |= {"bytes": size, "rss_growth_mb": round(growth), "rss_growth_mb_of_8": round(eight)}
    return outcome


async def _growth(system: System, path: Path, at_once: int) -> float:
    """MB by which the API's resident memory grows at most while `at_once` uploads are under way."""
    before = psutil.Process(system.processes()["floopy-api"]).memory_info().rss
    async with system.watched() as usage:
        await asyncio.gather(*(system.upload(path) for _ in range(at_once)))
    return (usage["floopy-api"].peak_rss - before) / 1e6
