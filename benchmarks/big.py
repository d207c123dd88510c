"""One file of 500,000 lines, cut into many provider batches; then 1,000,000 with a higher upload limit.

The provider answers at once and its work is timed too. Linear growth has a `time_per_line_ratio` of one.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.data import write_chat_file
from benchmarks.end_to_end import raw_limit
from benchmarks.harness import Options, Outcome
from benchmarks.system import System, Usage, running_system

LINE_BYTES = 380


async def run(options: Options) -> Outcome:
    sizes = (1_000, 2_000) if options.small else (500_000, 1_000_000)
    outcome = Outcome("big", "lines/s", details={"lines": list(sizes)})
    rows: list[tuple[Any, ...]] = []
    seconds: list[float] = []
    peaks: list[dict[str, int]] = []
    with tempfile.TemporaryDirectory() as scratch:
        async with running_system({"FLOOPY_FILES__MAX_BYTES": "1000000000"}) as system:
            await system.simulator("config", {"auto": True})
            for lines in sizes:
                path = Path(scratch) / f"{lines}.jsonl"
                write_chat_file(path, lines, LINE_BYTES, f"n{lines}")
                taken, usage, batch_id = await one_batch(system, path)
                seconds.append(taken)
                outcome.values.append(lines / taken)
                outcome.limits.append(await raw_limit(system, batch_id, lines))
                peaks.append({name: round(use.peak_rss / 1e6) for name, use in usage.items()})
                outcome.details[f"peak_rss_mb_{lines}"] = peaks[-1]
                rows.append((lines, round(taken, 1), *map(round, (outcome.values[-1], outcome.limits[-1]))))
    outcome.details["time_per_line_ratio"] = round(seconds[1] / sizes[1] / (seconds[0] / sizes[0]), 3)
    outcome.tables.append((("lines", "seconds", "lines/s", "raw lines/s"), rows))
    header = ("process", *(f"peak RSS MB at {lines}" for lines in sizes))
    outcome.tables.append((header, [(name, *(each[name] for each in peaks)) for name in peaks[0]]))
    return outcome


async def one_batch(system: System, path: Path) -> tuple[float, dict[str, Usage], str]:
    """Seconds from the create to balance, what every process used, and the batch."""
    file_id = await system.upload(path)
    async with system.watched() as usage:
        started = time.monotonic()
        batch_id = await system.create(file_id)
        await system.balanced(batch_id, 1_800)
        seconds = time.monotonic() - started
    return seconds, usage, batch_id
