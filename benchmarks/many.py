"""2,000 batches of 25 lines from 50 organisations, created as fast as the API takes them.

The limit is how fast as many connections insert such documents into the same database, and nothing else.
"""

import asyncio
import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import SecretStr
from pymongo import MongoClient, WriteConcern

from benchmarks.data import write_chat_file
from benchmarks.harness import Options, Outcome
from benchmarks.load import connect, request
from benchmarks.system import System, running_system, until
from floopy_common.chassis.mongo import open_mongo
from floopy_common.chassis.secrets import Keyring
from floopy_common.settings import MongoSettings
from floopy_common.stores.accounts import AccountStore
from floopy_common.stores.api_keys import ApiKeyStore
from floopy_common.stores.orgs import OrgStore

CONNECTIONS = 16
_SELDOM = 0.5
"""Seconds between two looks at whether all is done: the count is work for the database, too."""


async def run(options: Options) -> Outcome:
    batches, orgs = (40, 4) if options.small else (2_000, 50)
    batches = options.batches or batches
    outcome = Outcome("many", "batches/s created", details={"batches": batches, "orgs": orgs})
    rows, spent = [], []
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "in.jsonl"
        write_chat_file(path, 25, 1_200)
        for number in range(1, options.rounds + 1):
            async with running_system() as system:
                keys = await _organisations(system, orgs)
                files = [await _upload(system, key, path) for key in keys]
                async with system.watched() as usage:
                    created, seconds, balanced = await _round(system, keys, files, batches)
                spent.append({name: each.cpu * 1000 / batches for name, each in usage.items()})
                outcome.values.append(created)
                outcome.limits.append(await asyncio.to_thread(_insert_rate, system.credentials, batches))
                rows.append((number, round(created), round(seconds, 1), balanced))
    outcome.details["balanced_in_s"] = [row[2] for row in rows]
    names = sorted({name for each in spent for name in each}, key=lambda name: -spent[-1].get(name, 0.0))
    outcome.details["cpu_ms_a_batch"] = round(sum(sum(each.values()) for each in spent) / len(spent), 1)
    outcome.tables.append(
        (
            ("CPU ms a batch", *names),
            [(n, *(round(s.get(x, 0.0), 1) for x in names)) for n, s in enumerate(spent, 1)],
        )
    )
    outcome.tables.append((("round", "created/s", "all balanced in s", "balanced"), rows))
    return outcome


async def _round(system: System, keys: list[str], files: list[str], batches: int) -> tuple[float, float, int]:
    """(creates a second, seconds from the first create until the last balance, balanced batches)."""
    connections = await connect(system.credentials["base_url"], CONNECTIONS)
    numbers = iter(range(batches))
    started = time.monotonic()

    async def work(connection: object) -> None:
        for number in numbers:
            body = {
                "input_file_id": files[number % len(files)],
                "endpoint": "/v1/chat/completions",
                "completion_window": "24h",
                "metadata": {"n": str(number)},
            }
            wire = request(
                "POST",
                f"{system.credentials['base_url']}/batches",
                keys[number % len(keys)],
                json.dumps(body).encode(),
            )
            status = await connection.ask(wire)  # type: ignore[attr-defined]
            if status != 200:
                raise RuntimeError(f"a create was answered with {status}")

    try:
        await asyncio.gather(*(work(connection) for connection in connections))
    finally:
        for connection in connections:
            connection.close()
    created = batches / (time.monotonic() - started)
    settings = MongoSettings(
        uri=system.credentials["mongo_uri"], database=system.credentials["mongo_database"]
    )
    async with open_mongo(settings, "bench") as mongo:

        async def all_balanced() -> int:
            count = await mongo.collection("batches").count({"audit.stage": {"$in": ["balanced", "closed"]}})
            return count if count >= batches else 0

        balanced = await until(all_balanced, 600, "balance of every batch", _SELDOM)
    return created, time.monotonic() - started, balanced


def _insert_rate(credentials: dict[str, Any], count: int) -> float:
    """Documents like a batch inserted a second, one at a time on each connection, majority and journalled."""
    with (
        MongoClient[dict[str, Any]](credentials["mongo_uri"]) as client,
        ThreadPoolExecutor(CONNECTIONS) as pool,
    ):
        source = client[credentials["mongo_database"]].batches
        name = f"{credentials['mongo_database']}_raw"
        target = client[name].get_collection("batches", write_concern=WriteConcern(w="majority", j=True))
        batch = source.find_one() or {}
        started = time.monotonic()
        for inserted in pool.map(lambda number: target.insert_one({**batch, "_id": number}), range(count)):
            inserted.inserted_id  # noqa: B018 - raises what the call raised
        seconds = time.monotonic() - started
        client.drop_database(name)
        return count / seconds


async def _organisations(system: System, count: int) -> list[str]:
    """An API key of each of `count` new organisations, every one with an account at the simulator."""
    secret = SecretStr((system.data_dir / "secret.key").read_text().strip())
    keyring = Keyring(secret)
    settings = MongoSettings(
        uri=system.credentials["mongo_uri"], database=system.credentials["mongo_database"]
    )
    keys = []
    async with open_mongo(settings, "bench") as mongo:
        for number in range(count):
            org = await OrgStore(mongo).create(f"bench {number}", "enterprise")
            account_key = SecretStr(f"sk-bench{number:06d}")
            await AccountStore(mongo, keyring).create(org["_id"], "openai", None, account_key)
            _, key = await ApiKeyStore(mongo, keyring).create(org["_id"], "bench")
            keys.append(key.get_secret_value())
    return keys


async def _upload(system: System, key: str, path: Path) -> str:
    form = aiohttp.FormData()
    form.add_field("purpose", "batch")
    form.add_field("file", path.read_bytes(), filename="in.jsonl")
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{system.credentials['base_url']}/files"
    async with system.session.post(url, data=form, headers=headers) as answer:
        return str((await answer.json())["id"])
