"""How the time of each stage grows with the lines of a batch, from 1,000 to 1,000,000 of 380 bytes.

The stages of one batch follow on each other here: the provider is told when to end, the sinks stand still
while results are settled. The value is the largest exponent of a fit of time against lines: one is linear,
two would not be borne. The medians of the rounds, each in a system of its own, are drawn to
docs/benchmarks/growth.svg.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from benchmarks.data import write_chat_file
from benchmarks.end_to_end import executed, submission
from benchmarks.harness import Options, Outcome
from benchmarks.plot import exponent, log_log
from benchmarks.settle import emitted, sinks_stopped
from benchmarks.system import System, running_system, until

LINE_BYTES = 380
STAGES = ("upload", "plan", "submit", "settle", "sinks", "balance")
PLOT = Path(__file__).parents[1] / "docs" / "benchmarks" / "growth.svg"
ENVIRONMENT = {
    "FLOOPY_FILES__MAX_BYTES": "1000000000",
    # a sink that stands still for minutes must not be taken for dead
    "FLOOPY_KAFKA__SESSION_TIMEOUT": "900",
}
_Stages = Mapping[str, Sequence[float]]
"""Seconds of each stage at each size."""
_SINKS = 3
_FITTED = 3
"""Only the largest sizes are fitted: what a batch costs however small it is hides growth."""


async def run(options: Options) -> Outcome:
    sizes = (250, 500) if options.small else (1_000, 4_000, 16_000, 64_000, 250_000, 1_000_000)
    outcome = Outcome("growth", "exponent, 1 is linear", details={"lines": list(sizes)})
    rounds: list[_Stages] = []
    for _ in range(options.rounds):
        rounds.append(await one_round(sizes))
        outcome.values.append(max(_exponents(sizes, rounds[-1]).values()))
        outcome.limits.append(1.0)
    measured = {
        stage: [statistics.median(each) for each in zip(*(one[stage] for one in rounds), strict=True)]
        for stage in STAGES
    }
    exponents = _exponents(sizes, measured)
    outcome.details |= {"exponents": exponents, "seconds": _rounded(measured)}
    header = ("stage, median", *(f"{lines} lines, s" for lines in sizes), "exponent")
    rows = [(stage, *_rounded(measured)[stage], exponents[stage]) for stage in STAGES]
    outcome.tables.append((header, rows))
    if not options.small:
        PLOT.parent.mkdir(parents=True, exist_ok=True)
        PLOT.write_text(log_log(sizes, measured, "lines", "seconds"))
    return outcome


async def one_round(sizes: Sequence[int]) -> _Stages:
    """Seconds of each stage at each size."""
    seconds: dict[str, list[float]] = {stage: [] for stage in STAGES}
    with tempfile.TemporaryDirectory() as scratch:
        async with running_system(ENVIRONMENT) as system:
            for lines in (sizes[0], *sizes):  # the first only warms up
                path = Path(scratch) / "growth.jsonl"
                write_chat_file(path, lines, LINE_BYTES, f"n{lines}")
                for stage, taken in (await one_batch(system, path)).items():
                    seconds[stage].append(taken)
    return {stage: taken[1:] for stage, taken in seconds.items()}


def _exponents(sizes: Sequence[int], seconds: _Stages) -> dict[str, float]:
    return {stage: round(exponent(sizes[-_FITTED:], taken[-_FITTED:]), 2) for stage, taken in seconds.items()}


async def one_batch(system: System, path: Path) -> dict[str, float]:
    """Seconds of each stage of a batch."""
    await system.simulator("config", {"auto": False})
    taken: dict[str, float] = {}
    file_id = await _timed(taken, "upload", system.upload(path))
    started = time.monotonic()
    batch_id = await system.create(file_id)
    await planned(system, batch_id)
    taken["plan"] = time.monotonic() - started
    await _timed(taken, "submit", submission(system, batch_id))
    upstream = await executed(system)
    with sinks_stopped(system):
        await _timed(taken, "settle", _settled(system, batch_id, upstream))
    await _timed(taken, "sinks", confirmed(system, batch_id))
    await _timed(taken, "balance", system.balanced(batch_id, 600))
    return taken


async def _timed(taken: dict[str, float], stage: str, work: Awaitable[Any]) -> Any:
    started = time.monotonic()
    done = await work
    taken[stage] = time.monotonic() - started
    return done


async def planned(system: System, batch_id: str) -> None:
    async def there() -> bool:
        status = (await system.batch(batch_id))["status"]
        if status == "failed":
            raise RuntimeError(f"{batch_id} failed")
        return bool(status == "in_progress")

    await until(there, 600, "a plan")


async def _settled(system: System, batch_id: str, upstream: Sequence[str]) -> None:
    for provider_batch in upstream:
        await system.simulator(f"batches/{provider_batch}/advance", {"to": "completed"})
    await emitted(system, batch_id)


async def confirmed(system: System, batch_id: str) -> None:
    """Return once every sink has its receipt of every segment."""
    with MongoClient[dict[str, Any]](system.credentials["mongo_uri"]) as client:
        database = client[system.credentials["mongo_database"]]
        segments = await asyncio.to_thread(database.segments.count_documents, {"batch_id": batch_id})

        async def all_there() -> bool:
            found = await asyncio.to_thread(database.receipts.count_documents, {"batch_id": batch_id})
            return bool(found >= _SINKS * segments)

        await until(all_there, 900, "receipts")


def _rounded(seconds: _Stages) -> dict[str, list[float]]:
    return {stage: [round(each, 3) for each in taken] for stage, taken in seconds.items()}
