"""One file of 500,000 lines, cut into many provider batches; then 1,000,000 with a higher upload limit.

The provider answers at once and its work is timed too. A round is both, in a system of its own; its figure is
that of the larger. Linear growth has a `time_per_line_ratio` of one.
"""

import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.data import write_chat_file
from benchmarks.end_to_end import raw_limit
from benchmarks.harness import Options, Outcome
from benchmarks.system import System, Usage, running_system

LINE_BYTES = 380


async def run(options: Options) -> Outcome:
    warm, *sizes = (500, 1_000, 2_000) if options.small else (20_000, 500_000, 1_000_000)
    outcome = Outcome("big", "lines/s", details={"lines": sizes})
    rows: list[tuple[Any, ...]] = []
    ratios: list[float] = []
    peaks: dict[int, dict[str, int]] = {lines: {} for lines in sizes}
    with tempfile.TemporaryDirectory() as scratch:
        paths = {lines: Path(scratch) / f"{lines}.jsonl" for lines in (warm, *sizes)}
        for lines, path in paths.items():
            write_chat_file(path, lines, LINE_BYTES, f"n{lines}")
        for number in range(1, options.rounds + 1):
            per_line: list[float] = []
            async with running_system({"FLOOPY_FILES__MAX_BYTES": "1000000000"}) as system:
                await system.simulator("config", {"auto": True})
                await one_batch(system, paths[warm])
                for lines in sizes:
                    seconds, usage, batch_id = await one_batch(system, paths[lines])
                    per_line.append(seconds / lines)
                    _raise_to(peaks[lines], usage)
                    limit = await raw_limit(system, batch_id, lines)
                    rows.append((number, lines, round(seconds, 1), round(lines / seconds), round(limit)))
            outcome.values.append(1 / per_line[-1])
            outcome.limits.append(limit)
            ratios.append(per_line[-1] / per_line[0])
    outcome.details["time_per_line_ratio"] = round(statistics.median(ratios), 3)
    outcome.details |= {f"peak_rss_mb_{lines}": peak for lines, peak in peaks.items()}
    outcome.tables.append((("round", "lines", "seconds", "lines/s", "raw lines/s"), rows))
    header = ("process", *(f"peak RSS MB at {lines}" for lines in sizes))
    names = peaks[sizes[0]]
    outcome.tables.append((header, [(name, *(peaks[lines][name] for lines in sizes)) for name in names]))
    return outcome


def _raise_to(peaks: dict[str, int], usage: Mapping[str, Usage]) -> None:
    for name, use in usage.items():
        peaks[name] = max(peaks.get(name, 0), round(use.peak_rss / 1e6))


async def one_batch(system: System, path: Path) -> tuple[float, dict[str, Usage], str]:
    """Seconds from the create to balance, what every process used, and the batch."""
    file_id = await system.upload(path)
    async with system.watched() as usage:
        started = time.monotonic()
        batch_id = await system.create(file_id)
        await system.balanced(batch_id, 1_800)
        seconds = time.monotonic() - started
    return seconds, usage, batch_id
