"""From `POST /v1/batches` to balanced: 50,000 lines of 1.2 KB, answers of 1.5 KB, everything on one machine.

The provider's own work is not timed: the simulator executes the lines while the clock stands still, between
the last shard's submission and the moment its results are announced. Its CPU is reported all the same. The
limit stores and sends as much, raw: the three rows of each line, the results twice, an event a line.
"""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.data import write_chat_file
from benchmarks.harness import Options, Outcome
from benchmarks.lag import lags, percentiles
from benchmarks.plan import MODELS
from benchmarks.raw import lines_rate
from benchmarks.system import System, Usage, running_system, until

LINE_BYTES = 1_200
STORED_BYTES = 3_400
"""Of a line's results: as they came, and in the output file."""


async def run(options: Options) -> Outcome:
    lines = 1_000 if options.small else 50_000
    provider = options.provider
    outcome = Outcome("end_to_end", "lines/s", details={"lines": lines, "provider": provider})
    peaks: dict[str, Usage] = {}
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        async with running_system() as system:
            warm = _file(Path(scratch), min(lines, 2_000), "warm", provider)
            await one_round(system, warm, provider)
            before = await lags(system.metrics_ports())
            for number in range(1, options.rounds + 1):
                path = _file(Path(scratch), lines, f"r{number}", provider)
                async with system.watched() as usage:
                    submit, settle, batch_id = await one_round(system, path, provider)
                _keep_peaks(peaks, usage)
                outcome.values.append(lines / (submit + settle))
                outcome.limits.append(await raw_limit(system, batch_id, lines))
                figures = (outcome.values[-1], outcome.limits[-1])
                rows.append((number, round(submit, 2), round(settle, 2), *map(round, figures)))
            # of all rounds: one alone has too few turns for a hundredth of them to mean much
            outcome.details["loop_lag_p99_s"] = percentiles(before, await lags(system.metrics_ports()))
    outcome.tables.append((("round", "plan+submit s", "settle+sinks s", "lines/s", "raw lines/s"), rows))
    _describe(outcome, peaks, lines)
    return outcome


def _file(directory: Path, lines: int, tag: str, provider: str) -> Path:
    path = directory / f"{tag}.jsonl"
    write_chat_file(path, lines, LINE_BYTES, tag, MODELS[provider])
    return path


def _describe(outcome: Outcome, peaks: Mapping[str, Usage], lines: int) -> None:
    mb = {name: round(use.peak_rss / 1e6) for name, use in peaks.items()}
    us = {name: round(use.cpu / lines * 1e6, 1) for name, use in peaks.items()}
    late = outcome.details["loop_lag_p99_s"]
    header = ("process", "peak RSS MB", "CPU us/line (last round)", "loop lag p99 <= s")
    table = [(name, mb[name], us[name], late.get(name, "")) for name in peaks]
    outcome.tables.append((header, table))
    outcome.details |= {"peak_rss_mb": mb, "cpu_us_per_line": us}


async def raw_limit(system: System, batch_id: str, lines: int) -> float:
    known = system.credentials
    where = (known["mongo_uri"], known["mongo_database"], known["kafka_bootstrap_servers"])
    return await lines_rate(*where, batch_id, min(lines, 100_000), STORED_BYTES)


async def one_round(system: System, path: Path, provider: str = "openai") -> tuple[float, float, str]:
    """Seconds from the create to the last submission, and from the provider's end to balance; the batch."""
    file_id = await system.upload(path)
    await system.simulator("config", {"auto": False})
    started = time.monotonic()
    batch_id = await system.create(file_id, provider)
    await submission(system, batch_id)
    submit = time.monotonic() - started
    upstream = await executed(system)
    started = time.monotonic()
    for provider_batch in upstream:
        await system.simulator(f"batches/{provider_batch}/advance", {"to": "completed"})
    await system.balanced(batch_id, 600)
    return submit, time.monotonic() - started, batch_id


async def submission(system: System, batch_id: str) -> None:
    """Return once every shard of the batch is with the provider."""

    async def submitted() -> bool:
        batch = await system.batch(batch_id)
        if batch["status"] == "failed":
            raise RuntimeError(f"the batch failed: {batch['errors']}")
        shards = batch["floopy"]["shards"]
        return batch["status"] == "in_progress" and set(shards) == {"submitted"}

    await until(submitted, 300, "submission", 0.05)


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
