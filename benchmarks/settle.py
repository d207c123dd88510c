"""Settle: a provider batch has ended -> its results fetched, archived, in the output file and sent as events.

The sinks stand still meanwhile: what is timed is the reconciler with MongoDB and the broker. The limit is one
loop in this process that decodes the same lines, joins them, and writes output lines and small events.
"""

import asyncio
import io
import json
import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from pymongo import MongoClient

from benchmarks.data import write_chat_file
from benchmarks.end_to_end import executed, submission
from benchmarks.harness import Options, Outcome
from benchmarks.system import RECONCILER, RENDERER, System, Usage, running_system, until

LINE_BYTES = 1_200
_AT_WORK = (RECONCILER, RENDERER, "mongod", "broker", "simulator")
_SINKS = ("floopy-metering", "floopy-logging", "floopy-feedback")


async def run(options: Options) -> Outcome:
    lines = 1_000 if options.small else 50_000
    outcome = Outcome("settle", "lines/s", details={"lines": lines})
    rows = []
    uses: dict[str, Usage] = {}
    lag = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        async with running_system() as system:
            for number in range(options.rounds + 1):
                path = Path(scratch) / f"round-{number}.jsonl"
                count = lines if number else min(lines, 2_000)
                write_chat_file(path, count, LINE_BYTES, f"r{number}")
                before = await loop_lags(system)
                seconds, uses, answers = await one_round(system, path)
                lag = percentile(before, await loop_lags(system), 0.99)
                if number == 0:
                    continue  # warm-up
                outcome.values.append(lines / seconds)
                outcome.limits.append(await asyncio.to_thread(simplest, path.read_bytes(), answers))
                rows.append((number, round(seconds, 2), round(lines / seconds), f"{lag:g}"))
    outcome.tables.append((("round", "seconds", "lines/s", "loop lag p99 <= s"), rows))
    us = {name: round(use.cpu / lines * 1e6, 1) for name, use in uses.items()}
    mb = {name: round(use.peak_rss / 1e6) for name, use in uses.items()}
    header = ("process", "CPU us/line (last round)", "peak RSS MB (last round)")
    outcome.tables.append((header, [(name, us[name], mb[name]) for name in uses]))
    outcome.details |= {"peak_rss_mb": mb, "loop_lag_p99_s": lag, "cpu_us_per_line": us}
    return outcome


async def one_round(system: System, path: Path) -> tuple[float, dict[str, Usage], bytes]:
    """Seconds until every segment is emitted, what the processes at work used, and the output file."""
    file_id = await system.upload(path)
    await system.simulator("config", {"auto": False})
    batch_id = await system.create(file_id)
    await submission(system, batch_id)
    upstream = await executed(system)
    with sinks_stopped(system):
        async with system.watched() as usage:
            started = time.monotonic()
            for provider_batch in upstream:
                await system.simulator(f"batches/{provider_batch}/advance", {"to": "completed"})
            await emitted(system, batch_id)
            seconds = time.monotonic() - started
        output = await _output(system, batch_id)
    await system.balanced(batch_id, 600)
    return seconds, {name: usage[name] for name in _AT_WORK if name in usage}, output


async def emitted(system: System, batch_id: str) -> None:
    """Return once every segment of the batch has left; asking makes the provider batch be looked at."""
    uri, name = system.credentials["mongo_uri"], system.credentials["mongo_database"]

    async def collected() -> bool:
        return set((await system.batch(batch_id))["floopy"]["shards"]) != {"submitted"}

    # one GET alone may come when the last look, before the provider's end, still counts as fresh
    await until(collected, 60, "a look", 0.05)
    with MongoClient[dict[str, Any]](uri) as client:
        database = client[name]
        planned: dict[str, Any] = await asyncio.to_thread(_one, database.batches, {"_id": batch_id})
        done = {"batch_id": batch_id, "plan_id": planned["plan"]["plan_id"], "emitted": {"$ne": None}}

        async def all_emitted() -> bool:
            count = await asyncio.to_thread(database.segments.count_documents, done)
            return bool(count == planned["plan"]["segments"])

        await until(all_emitted, 600, "every segment emitted")


def _one(collection: Any, criteria: dict[str, Any]) -> Any:
    return collection.find_one(criteria)


async def loop_lags(system: System) -> dict[float, float]:
    """How often the reconciler's event loop was late by at most so many seconds."""
    ports = {row["name"]: row["port"] for row in json.loads((system.data_dir / "processes.json").read_text())}
    async with system.session.get(f"http://127.0.0.1:{ports[RECONCILER]}/metrics") as answer:
        text = await answer.text()
    found = re.findall(r'^floopy_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)$', text, re.MULTILINE)
    return {float(bound): float(count) for bound, count in found}


def percentile(before: dict[float, float], after: dict[float, float], share: float) -> float:
    """The bound below which `share` of what came between the two lies."""
    grown = {bound: after[bound] - before[bound] for bound in after}
    total = max(grown.values(), default=0)
    return min((bound for bound, count in grown.items() if count >= share * total), default=0.0)


async def _output(system: System, batch_id: str) -> bytes:
    async def ended() -> dict[str, Any] | None:
        batch = await system.batch(batch_id)
        return batch if batch["status"] == "completed" else None

    batch = await until(ended, 60, "completion")
    url = f"{system.credentials['base_url']}/files/{batch['output_file_id']}/content"
    async with system.session.get(url) as answer:
        return await answer.read()


@contextmanager
def sinks_stopped(system: System) -> Iterator[None]:
    """The sinks neither work nor die while the body runs."""
    processes = system.processes()
    pids = [processes[name] for name in _SINKS]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


class _Asked(msgspec.Struct, gc=False):
    custom_id: str
    body: msgspec.Raw


class _Response(msgspec.Struct, gc=False):
    status_code: int
    body: msgspec.Raw


class _Answered(msgspec.Struct, gc=False):
    custom_id: str
    response: _Response


class _Event(msgspec.Struct, gc=False):
    id: str
    status: str
    offset: int
    length: int


def simplest(asked: bytes, answers: bytes) -> float:
    """Lines a second of a loop that decodes, joins and encodes, and does nothing else."""
    decode_asked = msgspec.json.Decoder(_Asked).decode
    decode_answer = msgspec.json.Decoder(_Answered).decode
    encode = msgspec.json.Encoder().encode
    started = time.monotonic()
    by_id = {}
    for raw in answers.splitlines():
        answer = decode_answer(raw)
        by_id[answer.custom_id] = answer
    output = io.BytesIO()
    events = []
    for raw in asked.splitlines():
        line = decode_asked(raw)
        answer = by_id[line.custom_id]
        offset = output.tell()
        output.write(
            b'{"custom_id":%b,"response":{"status_code":%d,"body":%b},"error":null}\n'
            % (encode(line.custom_id), answer.response.status_code, answer.response.body)
        )
        events.append(encode(_Event(line.custom_id, "succeeded", offset, len(answer.response.body))))
    return len(events) / (time.monotonic() - started)
