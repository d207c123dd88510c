"""A whole batch delivered again: every event twice in the broker, as after an audit's doubt or lost offsets.

Both passes are timed from the first fetch to the last committed offset. The value is how much faster the
second one is; the limit is what looking up the ids that are there already would reach, were that all of it.
"""

import asyncio
import time
from typing import Any

from pymongo import MongoClient

from benchmarks.deliveries import SINKS, Bed, Delivery, running_backends, running_sinks
from benchmarks.harness import Options, Outcome
from benchmarks.sinks import describe
from benchmarks.system import Usage, watching
from floopy_common.domain.ids import line_id

_CALL = 1_000


async def run(options: Options) -> Outcome:
    lines, segment = (1_000, 250) if options.small else (50_000, 5_000)
    outcome = Outcome(
        "redeliver", "x the first pass", details={"lines": lines, "sinks": options.alone or "all"}
    )
    rows = []
    async with running_backends() as backends, running_sinks(backends, options.alone) as bed:
        await one_pass(bed, await bed.prepare(min(lines, 4_000), segment // 5, "warm"))
        for number in range(1, options.rounds + 1):
            delivery = await bed.prepare(lines, segment, f"r{number}")
            first, _ = await one_pass(bed, delivery)
            await bed.confirmed(delivery)
            again, usage = await one_pass(bed, delivery)
            await bed.check(delivery)
            looking = await asyncio.to_thread(_looking, bed, delivery)
            outcome.values.append(first / again)
            outcome.limits.append(first / looking)
            rates = (round(lines / seconds) for seconds in (first, again, looking))
            rows.append((number, *rates, round(first / again, 2)))
            describe(outcome, usage, lines)
    header = ("round", "first lines/s", "again lines/s", "ids looked up lines/s", "ratio")
    outcome.tables.insert(0, (header, rows))
    return outcome


async def one_pass(bed: Bed, delivery: Delivery) -> tuple[float, dict[str, Usage]]:
    """Seconds from the first fetch to the last commit, and what every process used meanwhile."""
    with bed.stopped():
        await bed.send(delivery)
    async with watching(bed.pids) as usage:
        started = time.monotonic()
        await bed.caught_up()
        seconds = time.monotonic() - started
    return seconds, usage


def _looking(bed: Bed, delivery: Delivery) -> float:
    """Seconds to ask for the ids of a thousand lines at a time, in each collection in turn."""
    with MongoClient[dict[str, Any]](bed.backends.mongo_uri) as client:
        started = time.monotonic()
        for sink in bed.sinks:
            rows = client[bed.database][SINKS[sink]]
            for first in range(1, delivery.lines + 1, _CALL):
                ids = {"$gte": line_id(delivery.batch_id, first)}
                ids["$lt"] = line_id(delivery.batch_id, min(first + _CALL, delivery.lines + 1))
                list(rows.find({"_id": ids}, {"_id": 1}))
        return time.monotonic() - started
