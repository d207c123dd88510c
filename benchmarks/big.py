"""One file of 500,000 lines, cut into many provider batches; then 1,000,000 with a higher upload limit."""

import tempfile
import time
from pathlib import Path

from benchmarks.data import write_chat_file
from benchmarks.harness import Options, Outcome
from benchmarks.system import running_system

LINE_BYTES = 380


async def run(options: Options) -> Outcome:
    sizes = (2_000, 4_000) if options.small else (500_000, 1_000_000)
    outcome = Outcome("big", "lines/s", details={"lines": list(sizes)})
    rows, seconds = [], []
    with tempfile.TemporaryDirectory() as scratch:
        async with running_system({"FLOOPY_FILES__MAX_BYTES": "1000000000"}) as system:
            for lines in sizes:
                path = Path(scratch) / f"{lines}.jsonl"
                write_chat_file(path, lines, LINE_BYTES, f"n{lines}")
                file_id = await system.upload(path)
                async with system.watched() as usage:
                    started = time.monotonic()
                    batch_id = await system.create(file_id)
                    await system.balanced(batch_id, 1_800)
                    seconds.append(time.monotonic() - started)
                outcome.values.append(lines / seconds[-1])
                peaks = {name: round(use.peak_rss / 1e6) for name, use in usage.items()}
                outcome.details[f"peak_rss_mb_{lines}"] = peaks
                ours = max(mb for name, mb in peaks.items() if name.startswith("floopy-"))
                rows.append((lines, round(seconds[-1], 1), round(outcome.values[-1]), ours))
    outcome.details["time_per_line_ratio"] = round(seconds[1] / sizes[1] / (seconds[0] / sizes[0]), 3)
    outcome.tables.append((("lines", "seconds", "lines/s", "largest floopy-* MB"), rows))
    return outcome
