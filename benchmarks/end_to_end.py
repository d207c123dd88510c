"""From `POST /v1/batches` to balanced: 50,000 lines of 1.2 KB, answers of 1.5 KB, everything on one machine.

The provider's own work is not timed: the simulator executes the lines while the clock stands still, between
the last shard's submission and the moment its results are announced. Its CPU is reported all the same.
"""

import tempfile
import time
from pathlib import Path

from benchmarks.data import write_chat_file
from benchmarks.harness import Options, Outcome
from benchmarks.system import System, Usage, running_system, until

LINE_BYTES = 1_200


async def run(options: Options) -> Outcome:
    lines = 1_000 if options.small else 50_000
    outcome = Outcome("end_to_end", "lines/s", details={"lines": lines})
    peaks: dict[str, Usage] = {}
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        async with running_system() as system:
            for number in range(options.rounds + 1):
                path = Path(scratch) / f"round-{number}.jsonl"
                count = lines if number else min(lines, 2_000)
                write_chat_file(path, count, LINE_BYTES, f"r{number}")
                async with system.watched() as usage:
                    submit, settle = await one_round(system, path)
                if number == 0:
                    continue  # warm-up
                _keep_peaks(peaks, usage)
                outcome.values.append(lines / (submit + settle))
                rows.append((number, round(submit, 2), round(settle, 2), round(outcome.values[-1])))
    outcome.tables.append((("round", "plan+submit s", "settle+sinks s", "lines/s"), rows))
    outcome.tables.append(
        (
            ("process", "peak RSS MB", "CPU us/line (last round)"),
            [
                (name, round(use.peak_rss / 1e6), round(use.cpu / lines * 1e6, 1))
                for name, use in peaks.items()
            ],
        )
    )
    outcome.details["peak_rss_mb"] = {name: round(use.peak_rss / 1e6) for name, use in peaks.items()}
    outcome.details["cpu_us_per_line"] = {
        name: round(use.cpu / lines * 1e6, 1) for name, use in peaks.items()
    }
    return outcome


async def one_round(system: System, path: Path) -> tuple[float, float]:
    """Seconds from the create to the last submission, and from the provider's end to balance."""
    file_id = await system.upload(path)
    await system.simulator("config", {"auto": False})
    started = time.monotonic()
    batch_id = await system.create(file_id)
    await submission(system, batch_id)
    submit = time.monotonic() - started
    upstream = await executed(system)
    started = time.monotonic()
    for provider_batch in upstream:
        await system.simulator(f"batches/{provider_batch}/advance", {"to": "completed"})
    await system.balanced(batch_id, 600)
    return submit, time.monotonic() - started


async def submission(system: System, batch_id: str) -> None:
    """Return once every shard of the batch is with the provider."""

    async def submitted() -> bool:
        batch = await system.batch(batch_id)
        if batch["status"] == "failed":
            raise RuntimeError(f"the batch failed: {batch['errors']}")
        shards = batch["floopy"]["shards"]
        return batch["status"] == "in_progress" and set(shards) == {"submitted"}

    await until(submitted, 300, "submission")


async def executed(system: System) -> list[str]:
    """The provider batches that run, their lines answered and only their end not announced."""
    ledger = await system.simulator("ledger")
    running = {"validating", "in_progress", "finalizing"}
    upstream = [batch["id"] for batch in ledger["batches"] if batch["status"] in running]
    for provider_batch in upstream:
        await system.simulator(f"batches/{provider_batch}/advance", {"to": "finalizing"})
    return upstream


def _keep_peaks(peaks: dict[str, Usage], usage: dict[str, Usage]) -> None:
    for name, use in usage.items():
        known = peaks.setdefault(name, Usage())
        known.peak_rss = max(known.peak_rss, use.peak_rss)
        known.cpu = use.cpu
