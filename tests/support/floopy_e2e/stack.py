"""The whole system as a user starts it: `floopy up` in a process of its own."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from waiting import eventually, is_ready

from floopy.simulation import Simulator
from floopy.stack.supervisor import deaths_in
from floopy.verification import Report, Verification
from floopy_common.chassis.mongo import open_mongo
from floopy_common.settings import MongoSettings
from floopy_e2e.providers import Provider

FAST = {
    "FLOOPY_SCAN__INTERVAL": "0.3",
    "FLOOPY_LEASE__TTL": "2",
    "FLOOPY_POLL__MIN": "0.2",
    "FLOOPY_POLL__MAX": "1",
    "FLOOPY_AUDIT__INTERVAL": "0.3",
    "FLOOPY_AUDIT__BACKOFF_MIN": "1",
    "FLOOPY_AUDIT__BACKOFF_MAX": "4",
    "FLOOPY_WAITING__MIN": "0.3",
    "FLOOPY_WAITING__MAX": "1",
    "FLOOPY_SUBMIT__CREATE_TIMEOUT": "3",
    "FLOOPY_SUBMIT__SETTLE_WINDOW": "4",
}
"""Durations of a test system: the product's own settings, nothing else."""

_SENT = {"$ne": None}
_BIN = Path(sys.executable).parent


class Stack:
    """A running system; `kill` and `processes` go by what `processes.json` says."""

    def __init__(self, data_dir: Path, environment: Mapping[str, str], arguments: tuple[str, ...]) -> None:
        self.data_dir = data_dir
        self._environment = dict(environment)
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None
        self.credentials: dict[str, Any] = {}

    async def start(self) -> None:
        """Start and wait until every process of the system is ready."""
        (self.data_dir / "processes.json").unlink(missing_ok=True)
        with (self.data_dir / "up.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                _BIN / "floopy",
                *("up", "--port", "0", "--data-dir", str(self.data_dir), *self._arguments),
                env={**os.environ, **FAST, **self._environment},
                stdout=log,
                stderr=log,
            )
        await eventually(self._ready, timeout=90, what="a ready system")

    async def _ready(self) -> bool:
        if self._process is None or self._process.returncode is not None:
            raise AssertionError("floopy up ended: " + (self.data_dir / "up.log").read_text()[-2000:])
        try:
            self.credentials = json.loads((self.data_dir / "credentials.json").read_text())
            rows = json.loads((self.data_dir / "processes.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return False
        ports = [
            row["port"] for row in rows if row["name"].startswith("floopy-") and row["name"] != "floopy-up"
        ]
        return len(ports) == len(SERVICES) and all(
            [await is_ready(f"http://127.0.0.1:{port}") for port in ports]
        )

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        return await self._end(signal.SIGTERM)

    async def kill_all(self) -> None:
        """SIGKILL of `floopy up` itself: nothing may stay behind."""
        await self._end(signal.SIGKILL)

    async def _end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        if self._process.returncode is None:
            self._process.send_signal(number)
        code = await asyncio.wait_for(self._process.wait(), 60)
        self._process = None
        return code

    def check_nobody_crashed(self) -> None:
        """Tests kill; a process that ended of itself is started again, so that nobody else would see it."""
        said = (self.data_dir / "up.log").read_text()
        assert not any(death.is_crash for death in deaths_in(said)), said

    def processes(self) -> dict[str, int]:
        """Name and pid of every process of the system."""
        rows = json.loads((self.data_dir / "processes.json").read_text())
        return {row["name"]: row["pid"] for row in rows}

    async def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Signal one process; the pid it had. After SIGKILL another runs in its place on return."""
        pid = self.processes()[name]
        os.kill(pid, number)
        if number is signal.SIGKILL:
            await eventually(lambda: self._replaced(name, pid), timeout=30, what=f"a new {name}")
        return pid

    @asynccontextmanager
    async def another(self, name: str) -> AsyncIterator[int]:
        """One more process of a service beside the supervised one, with the same environment; its pid."""
        environment = _environment_of(self.processes()[name]) | {"FLOOPY_METRICS_PORT": "0"}
        with (self.data_dir / f"another-{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                _BIN / name, env=environment, stdout=log, stderr=log
            )
        try:
            yield process.pid
        finally:
            process.terminate()
            await asyncio.wait_for(process.wait(), 30)

    async def _replaced(self, name: str, pid: int) -> bool:
        return self.processes().get(name, pid) != pid

    def client(self, api_key: str | None = None, provider: Provider | None = None) -> AsyncOpenAI:
        """The official SDK, as a user has it; on a provider, by the header that says so."""
        return AsyncOpenAI(
            base_url=self.credentials["base_url"],
            api_key=api_key or self.credentials["api_key"],
            default_headers={"floopy-provider": provider.name} if provider else {},
            max_retries=5,
        )

    async def create(self, provider: Provider, content: bytes, **options: Any) -> str:
        """Upload a file and create its batch at a provider; the batch's id."""
        async with self.client(provider=provider) as client:
            uploaded = await client.files.create(file=("in.jsonl", content), purpose="batch")
            batch = await client.batches.create(
                input_file_id=uploaded.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                **options,
            )
        assert batch.status == "validating"
        return batch.id

    async def files(self, batch: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """What is in a batch's output file and in its error file; empty where there is none."""
        async with self.client() as client:
            found = [
                (await client.files.content(batch[name])).content if batch[name] else b""
                for name in ("output_file_id", "error_file_id")
            ]
        return found[0], found[1]

    async def batch(self, batch_id: str) -> dict[str, Any]:
        """The batch as its GET answers, our extension included; asked again while the API restarts."""
        client = self.client()
        try:
            batch = await client.batches.retrieve(batch_id)
        finally:
            await client.close()
        return batch.model_dump()

    async def balanced(self, batch_id: str, timeout: float = 60) -> dict[str, Any]:
        """The batch once it has ended and every line is accounted for."""

        async def ask() -> dict[str, Any] | None:
            batch = await self.batch(batch_id)
            ended = batch["status"] in {"completed", "failed", "expired", "cancelled"}
            return batch if ended and batch["floopy"]["balanced"] else None

        try:
            return await eventually(ask, timeout=timeout, what="a balanced batch")
        except AssertionError as error:
            batch = await self.batch(batch_id)
            raise AssertionError(f"{error}; {batch['status']} {batch['floopy']}") from error

    async def floopy(self, *arguments: str, stdin: str | None = None) -> tuple[int, Any]:
        """Run one of the people's commands with --json; (exit code, what it printed)."""
        process = await asyncio.create_subprocess_exec(
            _BIN / "floopy",
            *arguments,
            *("--json", "--data-dir", str(self.data_dir)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate(stdin.encode() if stdin else b"")
        return process.returncode or 0, json.loads(out) if out.strip() else None

    async def recounted(self, batch_id: str) -> Report:
        """What `floopy verify` reports, without a process of its own."""
        settings = MongoSettings(
            uri=self.credentials["mongo_uri"], database=self.credentials["mongo_database"]
        )
        async with open_mongo(settings, "floopy-e2e") as mongo:
            report = await Verification(mongo).run(batch_id)
        assert report is not None
        return report

    async def verified(self, batch_id: str) -> Report:
        """That report, which must find no difference."""
        report = await self.recounted(batch_id)
        assert report.ok, report
        return report

    @asynccontextmanager
    async def database(self) -> AsyncIterator[AsyncDatabase[dict[str, Any]]]:
        """The system's own database, to damage or to read what no API shows."""
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(self.credentials["mongo_uri"])
        async with client:
            yield client[self.credentials["mongo_database"]]

    async def witnessed(self, batch_id: str, provider: Provider) -> list[dict[str, Any]]:
        """The provider's own ledger: one provider batch for each shard that was sent, and none foreign.

        Returns those of this batch.
        """
        async with self.database() as database:
            shards = await database.shards.find({"batch_id": batch_id, "provider_batch_id": _SENT}).to_list()
            sent = {shard["provider_batch_id"]: shard["lines"] for shard in shards}
            assert len(sent) == len(shards), f"two shards share a provider batch: {shards}"

            async def all_are_ours() -> list[dict[str, Any]] | None:
                ledger = provider.batches(await self.simulator.batches())
                known = await database.shards.distinct("provider_batch_id")
                return ledger if {batch["id"] for batch in ledger} <= set(known) else None

            # another batch's shard may be between its create and its record
            ledger = await eventually(all_are_ours, timeout=10, what="a ledger without foreign batches")
        ours = [batch for batch in ledger if batch["id"] in sent]
        assert {batch["id"]: batch["lines"] for batch in ours} == sent
        return ours

    @property
    def simulator(self) -> Simulator:
        return Simulator(self.credentials["simulator_url"])


SERVICES = (
    "floopy-api",
    "floopy-submitter",
    "floopy-reconciler",
    "floopy-metering",
    "floopy-logging",
    "floopy-feedback",
)


def _environment_of(pid: int) -> dict[str, str]:
    raw = Path(f"/proc/{pid}/environ").read_bytes().decode()
    return dict(entry.split("=", 1) for entry in raw.split("\0") if "=" in entry)


@asynccontextmanager
async def running_stack(
    data_dir: Path, environment: Mapping[str, str] | None = None, *arguments: str
) -> AsyncIterator[Stack]:
    """A started system; stopped at the end whatever happened."""
    data_dir.mkdir(parents=True, exist_ok=True)
    stack = Stack(data_dir, environment or {}, arguments)
    try:
        await stack.start()
        yield stack
    finally:
        await stack.stop()
    stack.check_nobody_crashed()
