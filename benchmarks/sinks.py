"""Line events in the broker -> ledger, log and score rows with their receipts; bodies in blobs.

The sinks stand still while the events are produced; the clock runs from there to the last receipt. The limit
is `insert_many` of the same rows into collections with the same indexes, a thread for each collection.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pymongo import MongoClient, WriteConcern

from benchmarks.deliveries import SINKS, Bed, Delivery, running_backends, running_sinks
from benchmarks.harness import Options, Outcome
from benchmarks.lag import lags, percentiles
from benchmarks.system import Usage, watching
from floopy_common.chassis.mongo import ensure_indexes, open_mongo
from floopy_common.domain.ids import line_id
from floopy_common.settings import MongoSettings

_CALL = 1_000
_BLOCK = 10_000


async def run(options: Options) -> Outcome:
    lines, segment = (1_000, 250) if options.small else (100_000, 5_000)
    outcome = Outcome("sinks", "lines/s", details={"lines": lines, "sinks": options.alone or "all"})
    rows = []
    async with running_backends() as backends, running_sinks(backends, options.alone) as bed:
        await one_pass(bed, await bed.prepare(min(lines, 4_000), segment // 5, "warm"))
        for number in range(1, options.rounds + 1):
            delivery = await bed.prepare(lines, segment, f"r{number}")
            before = await lags(bed.ports)
            seconds, usage = await one_pass(bed, delivery)
            lag = percentiles(before, await lags(bed.ports))
            await bed.check(delivery)
            limit = await raw_rate(bed, delivery)
            outcome.values.append(lines / seconds)
            outcome.limits.append(limit)
            rows.append((number, round(seconds, 2), round(lines / seconds), round(limit)))
            describe(outcome, usage, lines)
            outcome.details["loop_lag_p99_s"] = lag
    outcome.tables.insert(0, (("round", "seconds", "lines/s", "raw insert_many lines/s"), rows))
    return outcome


async def one_pass(bed: Bed, delivery: Delivery) -> tuple[float, dict[str, Usage]]:
    """Seconds from the first fetch to the last receipt, and what every process used meanwhile."""
    with bed.stopped():
        await bed.send(delivery)
    async with watching(bed.pids) as usage:
        started = time.monotonic()
        await bed.confirmed(delivery)
        seconds = time.monotonic() - started
    return seconds, usage


def describe(outcome: Outcome, usage: dict[str, Usage], lines: int) -> None:
    """The last round's table of processes, and its figures among the details."""
    us = {name: round(use.cpu / lines * 1e6, 1) for name, use in usage.items()}
    mb = {name: round(use.peak_rss / 1e6) for name, use in usage.items()}
    header = ("process", "CPU us/line", "peak RSS MB")
    outcome.tables[:] = [(header, [(name, us[name], mb[name]) for name in usage])]
    outcome.details |= {"cpu_us_per_line": us, "peak_rss_mb": mb}


async def raw_rate(bed: Bed, delivery: Delivery) -> float:
    """Lines a second when the rows that came of the delivery are only inserted."""
    uri, database = bed.backends.mongo_uri, f"{bed.database}_raw"
    async with open_mongo(MongoSettings(uri=uri, database=database), "benchmark") as mongo:
        await ensure_indexes(mongo)
    names = [SINKS[sink] for sink in bed.sinks]
    return await asyncio.to_thread(_raw_rate, uri, bed.database, database, delivery, names)


def _raw_rate(uri: str, source: str, target: str, delivery: Delivery, names: list[str]) -> float:
    seconds = 0.0
    with MongoClient[dict[str, Any]](uri) as client, ThreadPoolExecutor(len(names)) as pool:
        try:
            for first in range(1, delivery.lines + 1, _BLOCK):
                ids = {"$gte": line_id(delivery.batch_id, first)}
                ids["$lt"] = line_id(delivery.batch_id, min(first + _BLOCK, delivery.lines + 1))
                blocks = [list(client[source][name].find({"_id": ids})) for name in names]
                started = time.monotonic()
                list(pool.map(_insert, [client[target]] * len(names), names, blocks))
                seconds += time.monotonic() - started
        finally:
            client.drop_database(target)
    return delivery.lines / seconds


def _insert(database: Any, name: str, rows: list[dict[str, Any]]) -> None:
    collection = database.get_collection(name, write_concern=WriteConcern(w="majority", j=True))
    for at in range(0, len(rows), _CALL):
        collection.insert_many(rows[at : at + _CALL], ordered=False)
