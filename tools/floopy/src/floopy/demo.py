"""A real batch through the whole system: start it, run the example, show what came of it, stop it."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai import OpenAI
from rich.console import Console
from rich.table import Table

from floopy_common.chassis.mongo import Document, Mongo, open_mongo
from floopy_common.settings import MongoSettings

_READY_SECONDS = 90.0
_BALANCE_SECONDS = 60.0
_PAUSE = 0.1
_NANO = 1_000_000_000


class DemoFailedError(Exception):
    """What kept the demo from ending with a balanced batch."""


@dataclass(frozen=True)
class Example:
    """Where the example's programs are and where its files go."""

    examples: Path
    data_dir: Path

    @property
    def requests(self) -> Path:
        return self.data_dir / "requests.jsonl"

    @property
    def output(self) -> Path:
        return self.data_dir / "output.jsonl"


def run_demo(example: Example, broker: str, console: Console) -> str:
    """Run it; the id of the balanced batch. Raises DemoFailedError."""
    example.data_dir.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with _system(example.data_dir, broker) as credentials:
        console.print(f"The system is ready after {time.monotonic() - started:.1f} s.")
        _run(example, "make_requests.py", str(example.requests))
        environment = {"OPENAI_BASE_URL": credentials["base_url"], "OPENAI_API_KEY": credentials["api_key"]}
        said = _run(example, "first_batch.py", str(example.requests), str(example.output), **environment)
        batch_id = said.split()[1]
        batch = _balanced(credentials, batch_id)
        report(console, batch, _accounts(credentials, batch_id), example.output)
        console.print(f"\nFrom nothing to balanced in {time.monotonic() - started:.1f} s.")
    return batch_id


@contextmanager
def _system(data_dir: Path, broker: str) -> Iterator[dict[str, Any]]:
    """`floopy up` in a process of its own; yields what its credentials.json says."""
    credentials = data_dir / "credentials.json"
    credentials.unlink(missing_ok=True)
    command = [_script("floopy"), "up", "--port", "0", "--data-dir", str(data_dir), "--broker", broker]
    log = data_dir / "up.log"
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            _until(lambda: credentials.exists() or process.poll() is not None, _READY_SECONDS, "the start")
            if process.poll() is not None:
                raise DemoFailedError(f"floopy up ended:\n{log.read_text()[-2000:]}")
            yield json.loads(credentials.read_text())
        finally:
            process.terminate()


def _script(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _run(example: Example, script: str, *arguments: str, **environment: str) -> str:
    """Run one of the example programs as a user would; its output goes on to the reader and is returned."""
    command = [sys.executable, str(example.examples / script), *arguments]
    lines: list[str] = []
    with subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout or ():
            lines.append(line)
            sys.stdout.write(f"  {line}")
            sys.stdout.flush()
    if process.returncode:
        raise DemoFailedError(f"{script} ended with {process.returncode}")
    return "".join(lines)


def _balanced(credentials: dict[str, Any], batch_id: str) -> dict[str, Any]:
    """The batch as its GET shows it once every line is accounted for."""
    with OpenAI(base_url=credentials["base_url"], api_key=credentials["api_key"]) as client:
        seen: dict[str, Any] = {}

        def ask() -> bool:
            seen.update(client.batches.retrieve(batch_id).model_dump())
            return bool(seen["floopy"]["balanced"])

        _until(ask, _BALANCE_SECONDS, "the balance", lambda: json.dumps(seen.get("floopy")))
    return seen


def _until(
    holds: Callable[[], bool], seconds: float, what: str, state: Callable[[], str] = lambda: ""
) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise DemoFailedError(f"{what} took longer than {seconds:g} s {state()}")
        time.sleep(_PAUSE)


def _accounts(credentials: dict[str, Any], batch_id: str) -> Document:
    """{cost_nano_usd, unpriced, quality, scored} from the sinks' own rows."""

    async def read() -> Document:
        settings = MongoSettings(uri=credentials["mongo_uri"], database=credentials["mongo_database"])
        async with open_mongo(settings, "floopy-demo") as mongo:
            return {**await _cost(mongo, batch_id), **await _quality(mongo, batch_id)}

    return asyncio.run(read())


async def _cost(mongo: Mongo, batch_id: str) -> Document:
    rows = await mongo.collection("usage_rollups").aggregate(
        [
            {"$match": {"batch_id": batch_id}},
            {"$unwind": "$groups"},
            {
                "$group": {
                    "_id": None,
                    "cost_nano_usd": {"$sum": "$groups.cost_nano_usd"},
                    "unpriced": {"$sum": "$groups.unpriced"},
                }
            },
        ]
    )
    return {key: rows[0][key] for key in ("cost_nano_usd", "unpriced")} if rows else {}


async def _quality(mongo: Mongo, batch_id: str) -> Document:
    rows = await mongo.collection("scores").aggregate(
        [
            {"$match": {"_id": {"$gte": f"{batch_id}:", "$lt": f"{batch_id};"}, "status": "scored"}},
            {"$group": {"_id": None, "quality": {"$avg": "$quality"}, "scored": {"$sum": 1}}},
        ]
    )
    return {key: rows[0][key] for key in ("quality", "scored")} if rows else {}


def report(console: Console, batch: dict[str, Any], accounts: Document, output: Path) -> None:
    """The short report a reader takes away."""
    counts, usage, lines = batch["request_counts"], batch["usage"] or {}, batch["floopy"]["lines"]
    table = Table(title=f"{batch['id']}: {batch['status']}", show_header=False, title_justify="left")
    table.add_row("lines", f"{counts['completed']} completed, {counts['failed']} failed")
    table.add_row("tokens", f"{usage.get('input_tokens', 0)} in, {usage.get('output_tokens', 0)} out")
    unpriced = f", {accounts['unpriced']} lines without a price" if accounts.get("unpriced") else ""
    table.add_row("cost", f"${accounts.get('cost_nano_usd', 0) / _NANO:.6f} at the batch price{unpriced}")
    quality = (
        f"{accounts['quality']:.2f} on average over {accounts['scored']}"
        if accounts.get("scored")
        else "none"
    )
    table.add_row("scores", quality)
    table.add_row("output", str(output))
    numbers = ("total", "answered", "logged", "metered", "scored")
    table.add_row("accounted for", ", ".join(f"{name} {lines[name]}" for name in numbers))
    table.add_row("balanced", "yes" if batch["floopy"]["balanced"] else "no")
    console.print(table)
