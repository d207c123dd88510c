"""Poll: open provider batches of which nothing is new, all looked at once a minute.

Once with all of them in one account and once spread over many. `value` is the reconciler's share of a core;
the limit is what one loop takes that fetches and decodes every page of the same lists as often.
"""

import asyncio
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import msgspec
from pydantic import SecretStr
from pymongo import AsyncMongoClient

from benchmarks.harness import Options, Outcome
from benchmarks.listing_server import PAGE, batch_id
from benchmarks.system import System, Usage, running_system, until
from floopy_common.chassis.mongo import open_mongo
from floopy_common.chassis.secrets import Keyring
from floopy_common.settings import MongoSettings
from floopy_common.stores.accounts import AccountStore

RECONCILER = "floopy-reconciler"
_BULK = 5_000


@dataclass(frozen=True)
class Shape:
    """`interval` between two looks and `watched` are seconds."""

    accounts: int
    batches: int
    interval: float
    watched: float

    @property
    def total(self) -> int:
        return self.accounts * self.batches


async def run(options: Options) -> Outcome:
    if options.small:
        shapes = [Shape(1, 500, 4, 6), Shape(10, 50, 4, 6)]
    else:
        shapes = [Shape(1, 100_000, 60, 60), Shape(1_000, 100, 60, 60)]
    outcome = Outcome("poll", "cores", details={"batches": shapes[0].total})
    rows = []
    for _ in range(options.rounds):
        for shape in shapes:
            environment = {"FLOOPY_POLL__MAX": str(shape.interval)}
            async with provider(shape) as url, running_system(environment) as system:
                row, cores, limit = await measure(system, shape, url)
            rows.append(row)
            if shape.accounts == 1:
                outcome.values.append(cores)
                outcome.limits.append(limit)
            outcome.details[f"accounts_{shape.accounts}"] = dict(zip(_HEADER[2:], row[2:], strict=True))
    outcome.tables.append((_HEADER, rows))
    return outcome


_HEADER = (
    "accounts",
    "batches",
    "cores",
    "mongod",
    "late p99 <= s",
    "looks/s",
    "pages/s",
    "gets/s",
    "peak RSS MB",
    "limit",
)


async def measure(system: System, shape: Shape, url: str) -> tuple[tuple[Any, ...], float, float]:
    """A row of the table, the reconciler's cores and those of the limit."""
    await plant(system, shape, url)
    await asyncio.sleep(1.2 * shape.interval)  # the first looks come by the plan of the planting
    before, calls = await metrics(system), await counted(system, url)
    started = time.monotonic()
    async with system.watched() as usage:
        await asyncio.sleep(shape.watched)
    seconds = time.monotonic() - started
    after, calls_after = await metrics(system), await counted(system, url)
    limit = await simplest(shape, url) / shape.interval
    cores = usage[RECONCILER].cpu / seconds
    row = (
        shape.accounts,
        shape.total,
        round(cores, 3),
        round(usage.get("mongod", Usage()).cpu / seconds, 3),
        f"{late(before, after, 0.99):g}",
        round((looks(after) - looks(before)) / seconds),
        round((calls_after["list"] - calls["list"]) / seconds, 1),
        round((calls_after["get"] - calls["get"]) / seconds, 1),
        round(usage[RECONCILER].peak_rss / 1e6),
        round(limit, 3),
    )
    return row, cores, limit


async def plant(system: System, shape: Shape, url: str) -> None:
    """Open shards as they are after some looks, their next ones spread over the interval to come."""
    keyring = Keyring(SecretStr((system.data_dir / "secret.key").read_text().strip()))
    uri, name = system.credentials["mongo_uri"], system.credentials["mongo_database"]
    accounts = []
    async with open_mongo(MongoSettings(uri=uri, database=name), "bench") as mongo:
        store = AccountStore(mongo, keyring)
        for number in range(shape.accounts):
            key = SecretStr(f"sk-poll-{number}")
            accounts.append((await store.create("org_bench", "openai", f"{url}/v1", key))["_id"])
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(uri)
    now = datetime.now(UTC)
    first = now + timedelta(seconds=2 + shape.total / 20_000)
    try:
        shards = []
        for number in range(shape.total):
            account, place = divmod(number, shape.batches)
            due = first + timedelta(seconds=shape.interval * number / shape.total)
            shards.append(shard(accounts[account], account, place, now, due, shape.interval))
            if len(shards) == _BULK or number == shape.total - 1:
                await client[name].shards.insert_many(shards, ordered=False)
                shards = []
    finally:
        await client.close()


def shard(
    account_id: str, account: int, number: int, now: datetime, due: datetime, interval: float
) -> dict[str, Any]:
    batch = f"batch_bench{account}"
    return {
        "_id": f"bench:{account}:{number}",
        "batch_id": batch,
        "org_id": "org_bench",
        "plan_id": "bench",
        "no": number,
        "provider": "openai",
        "account_id": account_id,
        "endpoint": "/v1/chat/completions",
        "model": "gpt-4o-mini",
        "group": 0,
        "kind": "primary",
        "depth": 0,
        "parent": None,
        "ranges": [[1, 100]],
        "lines": 100,
        "bytes": 100_000,
        "tokens_estimate": 25_000,
        "segments": [0],
        "state": "submitted",
        "attempt": 1,
        "attempts": [
            {
                "id": f"att_{number:022d}",
                "nonce": f"{number:010d}",
                "phase": "created",
                "provider_batch_id": batch_id(account, number),
            }
        ],
        "provider_batch_id": batch_id(account, number),
        "provider_status": "in_progress",
        "provider_counts": {"total": 100, "completed": 40, "failed": 1},
        "provider_files": {"output": None, "error": None},
        "submitted_at": now - timedelta(seconds=number // 20),
        "poll": {
            "next_at": due,
            "interval": interval,
            "failures": 0,
            "started_at": None,
            "last_at": None,
            "asked_at": None,
        },
        "lease": None,
        "cancel_asked_at": None,
        "downloads": 0,
    }


async def metrics(system: System) -> str:
    ports = {
        row["name"]: row["port"]
        for row in msgspec.json.decode((system.data_dir / "processes.json").read_bytes())
    }
    async with system.session.get(f"http://127.0.0.1:{ports[RECONCILER]}/metrics") as answer:
        return await answer.text()


async def counted(system: System, url: str) -> dict[str, int]:
    async with system.session.get(f"{url}/calls") as answer:
        calls: dict[str, int] = await answer.json()
        return calls


def looks(text: str) -> float:
    return sum(
        float(value) for value in re.findall(r"^floopy_looks_total\{[^}]*\} (\S+)$", text, re.MULTILINE)
    )


def late(before: str, after: str, share: float) -> float:
    """The bound below which `share` of the looks between the two came."""
    pattern = re.compile(r'^floopy_look_lateness_seconds_bucket\{le="([^"]+)"\} (\S+)$', re.MULTILINE)
    earlier = dict(pattern.findall(before))
    grown = {float(bound): float(count) - float(earlier[bound]) for bound, count in pattern.findall(after)}
    total = max(grown.values(), default=0.0)
    return min((bound for bound, count in grown.items() if count >= share * total), default=0.0)


class _Counts(msgspec.Struct):
    total: int
    completed: int
    failed: int


class _Batch(msgspec.Struct):
    id: str
    status: str
    created_at: int
    request_counts: _Counts


class _Page(msgspec.Struct):
    data: list[_Batch]
    has_more: bool


async def simplest(shape: Shape, url: str) -> float:
    """CPU seconds in which every page of every list is fetched and decoded once."""
    decode = msgspec.json.Decoder(_Page).decode
    started = time.process_time()
    async with aiohttp.ClientSession() as session:
        for account in range(shape.accounts):
            after, more = "", True
            headers = {"Authorization": f"Bearer sk-poll-{account}"}
            while more:
                path = f"{url}/v1/batches?limit={PAGE}{after}"
                async with session.get(path, headers=headers) as answer:
                    page = decode(await answer.read())
                after, more = f"&after={page.data[-1].id}", page.has_more
    return time.process_time() - started


@asynccontextmanager
async def provider(shape: Shape) -> AsyncIterator[str]:
    """The listing server in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "benchmarks.listing_server",
        str(shape.accounts),
        str(shape.batches),
        str(port),
    ]
    process = subprocess.Popen(command)
    url = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as session:
            await until(lambda: _answers(session, url), 60, "the listing server")
        yield url
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 20)


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/calls") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False
