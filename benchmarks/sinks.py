"""Line events in the broker -> ledger, log and score rows with their receipts; bodies in blobs.

The sinks stand still while the events are produced; the clock runs from there to the last receipt. The limit
is `insert_many` of the same rows into collections with the same indexes, a thread for each collection.
"""

import time

from benchmarks.deliveries import SINKS, Bed, Delivery, running_backends, running_sinks
from benchmarks.harness import Options, Outcome
from benchmarks.lag import Buckets, lags, percentiles
from benchmarks.raw import rows_rate
from benchmarks.system import Usage, watching


async def run(options: Options) -> Outcome:
    lines, segment = (1_000, 250) if options.small else (100_000, 5_000)
    outcome = Outcome("sinks", "lines/s", details={"lines": lines, "sinks": options.alone or "all"})
    rows = []
    async with running_backends() as backends, running_sinks(backends, options.alone) as bed:
        await one_pass(bed, await bed.prepare(min(lines, 4_000), segment // 5, "warm"))
        for number in range(1, options.rounds + 1):
            delivery = await bed.prepare(lines, segment, f"r{number}")
            seconds, usage, before = await one_pass(bed, delivery)
            lag = percentiles(before, await lags(bed.ports))
            await bed.check(delivery)
            names = [SINKS[sink] for sink in bed.sinks]
            limit = await rows_rate(backends.mongo_uri, bed.database, delivery.batch_id, lines, names)
            outcome.values.append(lines / seconds)
            outcome.limits.append(limit)
            rows.append((number, round(seconds, 2), round(lines / seconds), round(limit)))
            describe(outcome, usage, lines)
            outcome.details["loop_lag_p99_s"] = lag
    outcome.tables.insert(0, (("round", "seconds", "lines/s", "raw insert_many lines/s"), rows))
    return outcome


async def one_pass(bed: Bed, delivery: Delivery) -> tuple[float, dict[str, Usage], dict[str, Buckets]]:
    """Seconds from the first fetch to the last receipt, and what every process used meanwhile.

    With how late the sinks' loops had been by then: by all the time they stood still.
    """
    with bed.stopped():
        await bed.send(delivery)
    async with watching(bed.pids) as usage:
        started = time.monotonic()
        before = await lags(bed.ports)
        await bed.confirmed(delivery)
        seconds = time.monotonic() - started
    return seconds, usage, before


def describe(outcome: Outcome, usage: dict[str, Usage], lines: int) -> None:
    """The last round's table of processes, and its figures among the details."""
    us = {name: round(use.cpu / lines * 1e6, 1) for name, use in usage.items()}
    mb = {name: round(use.peak_rss / 1e6) for name, use in usage.items()}
    header = ("process", "CPU us/line", "peak RSS MB")
    outcome.tables[:] = [(header, [(name, us[name], mb[name]) for name in usage])]
    outcome.details |= {"cpu_us_per_line": us, "peak_rss_mb": mb}
