"""The API under 64 connections: a finished batch, a batch that is refreshed, a list, creates.

The limit is what a handler that only sends fixed bytes reaches in the same round.
"""

import asyncio
import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.data import write_chat_file
from benchmarks.harness import Options, Outcome
from benchmarks.load import connect, paced, request, saturate
from benchmarks.system import System, running_system, until, watching

CONNECTIONS = 64


async def run(options: Options) -> Outcome:
    seconds = 1.0 if options.small else 8.0
    outcome = Outcome("api", "finished-batch GETs/s per core")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "in.jsonl"
        write_chat_file(path, 25, 1_200)
        async with running_system() as system:
            file_id = await system.upload(path)
            finished = await system.create(file_id)
            await system.balanced(finished, 60)
            await system.simulator("config", {"auto": False})
            running = await system.create(file_id)
            await until(lambda: _is_submitted(system, running), 60, "submission")
            calls = _calls(system, finished, running, file_id)
            # first: later thousands of batches wait to be worked on, and two cores have nothing left
            taken = await _create_latency(system, calls["create"], 50 if options.small else 500)
            async with _bare_server(system, running) as (pid, base):
                for _ in range(options.rounds):
                    for name in ("fixed", "found"):
                        bare = _bare(base, name)
                        rows.append((f"bare: {name}", *await _measured(base, {"bare": pid}, bare, seconds)))
                    api = {"api": system.processes()["floopy-api"]}
                    for name, make in calls.items():
                        rows.append(
                            (name, *await _measured(system.credentials["base_url"], api, make, seconds))
                        )
    for name, _, per_core in rows:
        if name == "get finished":
            outcome.values.append(per_core)
        if name == "bare: fixed":
            outcome.limits.append(per_core)
        key = f"{name} req/s per core".replace(": ", "_").replace(" ", "_")
        outcome.details.setdefault(key, []).append(per_core)
    outcome.details["create_p99_ms_at_50_per_s"] = round(taken, 1)
    outcome.tables.append((("call", "req/s", "req/s per core of its process"), rows))
    return outcome


async def _is_submitted(system: System, batch_id: str) -> bool:
    return set((await system.batch(batch_id))["floopy"]["shards"]) == {"submitted"}


def _calls(system: System, finished: str, running: str, file_id: str) -> dict[str, Callable[[], bytes]]:
    base, key = system.credentials["base_url"], system.credentials["api_key"]
    numbers = itertools.count()

    def create() -> bytes:
        body = {
            "input_file_id": file_id,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {"n": str(next(numbers))},
        }
        return request("POST", f"{base}/batches", key, json.dumps(body).encode())

    fixed = {
        "get finished": request("GET", f"{base}/batches/{finished}", key),
        "get with refresh": request("GET", f"{base}/batches/{running}", key),
        "list": request("GET", f"{base}/batches?limit=20", key),
    }
    return {**{name: lambda wire=wire: wire for name, wire in fixed.items()}, "create": create}  # type: ignore[misc]


async def _measured(
    base_url: str, process: dict[str, int], make: Callable[[], bytes], seconds: float
) -> tuple[int, int]:
    """(requests a second, requests a second of CPU of the one process that answers)."""
    connections = await connect(base_url, CONNECTIONS)
    async with watching(process) as usage:
        answered = await saturate(connections, make, seconds)
    for connection in connections:
        connection.close()
    (used,) = usage.values()
    return round(answered / seconds), round(answered / used.cpu)


@asynccontextmanager
async def _bare_server(system: System, batch_id: str) -> AsyncIterator[tuple[int, str]]:
    """(process id, URL) of the barest server there could be."""
    where = (system.credentials["mongo_uri"], system.credentials["mongo_database"], batch_id)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.bare_server", *where, stdout=asyncio.subprocess.PIPE
    )
    try:
        port = int(await process.stdout.readline())  # type: ignore[union-attr]
        yield process.pid, f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


def _bare(base: str, name: str) -> Callable[[], bytes]:
    wire = request("GET", f"{base}/{name}", "none")
    return lambda: wire


async def _create_latency(system: System, make: Callable[[], bytes], count: int) -> float:
    """99th percentile in milliseconds at 50 creates a second."""
    connections = await connect(system.credentials["base_url"], CONNECTIONS)
    taken = await paced(connections, make, 50.0, count)
    for connection in connections:
        connection.close()
    return statistics.quantiles(taken, n=100)[98]
