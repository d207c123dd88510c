"""A real batch at each provider through the whole system: start it, run the example, compare, stop it."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai import OpenAI
from rich.console import Console
from rich.table import Table

from floopy_common.chassis.mongo import Document, Mongo, open_mongo
from floopy_common.settings import MongoSettings

MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5"}
"""Where the example is sent, and the model its lines name there."""
NUMBERS = ("total", "answered", "logged", "metered", "scored")

_READY_SECONDS = 90.0
_BALANCE_SECONDS = 60.0
_PAUSE = 0.1
_NANO = 1_000_000_000


class DemoFailedError(Exception):
    """What kept the demo from ending with balanced batches."""


@dataclass(frozen=True)
class Example:
    """Where the example's programs are and where its files go."""

    examples: Path
    data_dir: Path

    def requests(self, provider: str) -> Path:
        return self.data_dir / f"requests-{provider}.jsonl"

    def output(self, provider: str) -> Path:
        return self.data_dir / f"output-{provider}.jsonl"


@dataclass(frozen=True)
class Ran:
    """One provider's batch as its GET shows it, what its lines cost and how they scored, and its answers."""

    provider: str
    batch: dict[str, Any]
    accounts: Document
    output: Path

    @property
    def lines(self) -> dict[str, int]:
        lines: dict[str, int] = self.batch["floopy"]["lines"]
        return lines


def run_demo(example: Example, broker: str, console: Console) -> list[Ran]:
    """Run it at every provider at once; the balanced batches. Raises DemoFailedError."""
    example.data_dir.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with _system(example.data_dir, broker) as credentials:
        console.print(f"The system is ready after {time.monotonic() - started:.1f} s.")
        with ThreadPoolExecutor(len(MODELS)) as pool:
            batches = list(pool.map(lambda provider: _send(example, credentials, provider), MODELS))
        accounts = asyncio.run(_accounts(credentials, [batch["id"] for batch in batches]))
        ran = [
            Ran(provider, batch, accounts[batch["id"]], example.output(provider))
            for provider, batch in zip(MODELS, batches, strict=True)
        ]
        report(console, ran)
        console.print(f"\nFrom nothing to balanced in {time.monotonic() - started:.1f} s.")
    return ran


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


def _send(example: Example, credentials: dict[str, Any], provider: str) -> dict[str, Any]:
    """The example's batch at one provider, once every line of it is accounted for."""
    requests, output = str(example.requests(provider)), str(example.output(provider))
    _run(provider, example.examples / "make_requests.py", requests, "--model", MODELS[provider])
    environment = {"OPENAI_BASE_URL": credentials["base_url"], "OPENAI_API_KEY": credentials["api_key"]}
    program = example.examples / "first_batch.py"
    said = _run(provider, program, requests, output, "--provider", provider, **environment)
    return _balanced(credentials, said.split()[1])


def _run(provider: str, script: Path, *arguments: str, **environment: str) -> str:
    """Run one of the example programs as a user would; its output goes on to the reader and is returned."""
    command = [sys.executable, str(script), *arguments]
    lines: list[str] = []
    with subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout or ():
            lines.append(line)
            sys.stdout.write(f"  {provider:<10}{line}")
            sys.stdout.flush()
    if process.returncode:
        raise DemoFailedError(f"{script.name} ended with {process.returncode}")
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


async def _accounts(credentials: dict[str, Any], batch_ids: Sequence[str]) -> dict[str, Document]:
    """By batch: {cost_nano_usd, unpriced, quality, scored} from the sinks' own rows."""
    settings = MongoSettings(uri=credentials["mongo_uri"], database=credentials["mongo_database"])
    async with open_mongo(settings, "floopy-demo") as mongo:
        return {
            batch_id: {**await _cost(mongo, batch_id), **await _quality(mongo, batch_id)}
            for batch_id in batch_ids
        }


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


def report(console: Console, ran: Sequence[Ran]) -> None:
    """The short comparison a reader takes away."""
    table = Table("", *(one.provider for one in ran), title="One file, two providers", title_justify="left")
    for name, cell in _ROWS:
        table.add_row(name, *(cell(one) for one in ran))
    console.print(table)


def _counts(ran: Ran) -> str:
    counts = ran.batch["request_counts"]
    return f"{counts['completed']} completed, {counts['failed']} failed"


def _tokens(ran: Ran) -> str:
    usage = ran.batch["usage"] or {}
    return f"{usage.get('input_tokens', 0)} in, {usage.get('output_tokens', 0)} out"


def _dollars(ran: Ran) -> str:
    unpriced = ran.accounts.get("unpriced")
    without = f", {unpriced} lines without a price" if unpriced else ""
    return f"${ran.accounts.get('cost_nano_usd', 0) / _NANO:.6f}{without}"


def _scores(ran: Ran) -> str:
    scored = ran.accounts.get("scored")
    return f"{ran.accounts['quality']:.2f} over {scored} answers" if scored else "none"


def _number(name: str) -> tuple[str, Callable[[Ran], str]]:
    return name, lambda ran: str(ran.lines[name])


_ROWS: tuple[tuple[str, Callable[[Ran], str]], ...] = (
    ("model", lambda ran: MODELS[ran.provider]),
    ("status", lambda ran: str(ran.batch["status"])),
    ("lines", _counts),
    ("tokens", _tokens),
    ("cost, batch price", _dollars),
    ("mean score", _scores),
    *(_number(name) for name in NUMBERS),
    ("balanced", lambda ran: "yes" if ran.batch["floopy"]["balanced"] else "no"),
    ("answers", lambda ran: ran.output.name),
)
