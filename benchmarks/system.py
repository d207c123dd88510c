"""The whole system for a benchmark: `floopy up` with the product's defaults, and what its processes use."""

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from floopy.stack.supervisor import deaths_in

READY_SECONDS = 120.0
_PAUSE = 0.02
_SELDOM = 0.2
"""Between two GETs of a batch that takes seconds: asking is work for the processes that are watched."""
_SAMPLE = 0.1
_SAMPLES_PER_LOOK = 5
"""For a process that was not there yet: it means reading about every process of the machine."""
RECONCILER = "floopy-reconciler"
RENDERER = "floopy-renderer"
"""The reconciler's child that renders large segments."""


@dataclass
class Usage:
    """Of one process over the time it was watched: peak resident memory in bytes, CPU seconds."""

    peak_rss: int = 0
    cpu: float = 0.0


@dataclass
class System:
    """A running system; `session` talks to its API with the first organisation's key."""

    data_dir: Path
    credentials: dict[str, Any]
    session: aiohttp.ClientSession
    usage: dict[str, Usage] = field(default_factory=dict)

    def processes(self) -> dict[str, int]:
        """Raises RuntimeError when one has died: what is measured then is a restart."""
        said = (self.data_dir / "up.log").read_text()
        if deaths_in(said):
            raise RuntimeError(said)
        return pids_of(self.data_dir)

    def metrics_ports(self) -> dict[str, int]:
        """Of every service."""
        rows = json.loads((self.data_dir / "processes.json").read_text())
        ports = {row["name"]: row["port"] for row in rows if row["name"].startswith("floopy-")}
        ports.pop("floopy-up", None)
        # the port named for the API is the public one
        listening = psutil.Process(self.processes()["floopy-api"]).net_connections("tcp")
        others = {each.laddr.port for each in listening if each.status == psutil.CONN_LISTEN}
        ports["floopy-api"] = min(others - {ports["floopy-api"]})
        return ports

    async def api(self, method: str, path: str, **options: Any) -> Any:
        url = self.credentials["base_url"] + path
        async with self.session.request(method, url, **options) as answer:
            body = await answer.json()
            if answer.status >= 300:
                raise RuntimeError(f"{method} {path}: {answer.status} {body}")
            return body

    async def upload(self, path: Path) -> str:
        """The id of the uploaded file."""
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        with path.open("rb") as content:
            form.add_field("file", content, filename=path.name)
            return str((await self.api("POST", "/files", data=form))["id"])

    async def create(self, file_id: str, provider: str = "openai") -> str:
        body = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        headers = {"floopy-provider": provider}
        return str((await self.api("POST", "/batches", json=body, headers=headers))["id"])

    async def batch(self, batch_id: str) -> dict[str, Any]:
        found: dict[str, Any] = await self.api("GET", f"/batches/{batch_id}")
        return found

    async def balanced(self, batch_id: str, timeout: float) -> dict[str, Any]:
        async def ask() -> dict[str, Any] | None:
            batch = await self.batch(batch_id)
            ended = batch["status"] in {"completed", "failed", "expired", "cancelled"}
            return batch if ended and batch["floopy"]["balanced"] else None

        found: dict[str, Any] = await until(ask, timeout, f"balance of {batch_id}", _SELDOM)
        return found

    async def simulator(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """A call of the simulator's control API."""
        url = f"{self.credentials['simulator_url']}/_sim/{path}"
        async with self.session.request("GET" if body is None else "POST", url, json=body) as answer:
            if answer.status >= 300:
                raise RuntimeError(f"{path}: {answer.status} {await answer.text()}")
            return await answer.json(content_type=None)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[dict[str, Usage]]:
        """Peak memory and CPU seconds of every process while the body runs."""
        async with watching(self.processes()) as usage:
            yield usage


@asynccontextmanager
async def watching(pids: Mapping[str, int]) -> AsyncIterator[dict[str, Usage]]:
    """Peak memory and CPU seconds of these processes while the body runs; complete after it.

    The process that renders for the reconciler is one of its own, however late it comes.
    """
    watched = {name: psutil.Process(pid) for name, pid in pids.items()}
    _add_renderer(watched)
    before = {name: _cpu(process) for name, process in watched.items()}
    usage = {name: Usage() for name in watched}
    sampling = asyncio.create_task(_sample(watched, usage))
    try:
        yield usage
    finally:
        sampling.cancel()
        for name, process in watched.items():
            usage[name].cpu = _cpu(process) - before.get(name, 0.0)
            usage[name].peak_rss = max(usage[name].peak_rss, process.memory_info().rss)


def _add_renderer(watched: dict[str, psutil.Process]) -> None:
    if RECONCILER in watched and RENDERER not in watched and (children := watched[RECONCILER].children()):
        watched[RENDERER] = children[0]


def pids_of(data_dir: Path) -> dict[str, int]:
    rows = json.loads((data_dir / "processes.json").read_text())
    return {row["name"]: row["pid"] for row in rows}


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _sample(watched: dict[str, psutil.Process], usage: dict[str, Usage]) -> None:
    for number in itertools.count():
        if number % _SAMPLES_PER_LOOK == 0:
            _add_renderer(watched)
        for name, process in watched.items():
            use = usage.setdefault(name, Usage())
            use.peak_rss = max(use.peak_rss, process.memory_info().rss)
        await asyncio.sleep(_SAMPLE)


async def until(ask: Callable[[], Awaitable[Any]], timeout: float, what: str, pause: float = _PAUSE) -> Any:
    """What `ask` answers once that is neither None nor False; TimeoutError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (answer := await ask()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout:g} s")
        await asyncio.sleep(pause)
    return answer


class _Attached:
    """A system that runs already, for benchmarks that shall share it, and what it was started with."""

    data_dir: Path | None = None
    environment: Mapping[str, str] = {}


def attach(data_dir: Path | None, environment: Mapping[str, str] | None = None) -> None:
    """From now on benchmarks use the system that runs there; None: each starts its own again."""
    _Attached.data_dir, _Attached.environment = data_dir, environment or {}


def attached_credentials() -> dict[str, Any] | None:
    if _Attached.data_dir is None:
        return None
    found: dict[str, Any] = json.loads((_Attached.data_dir / "credentials.json").read_text())
    return found


def attached_processes() -> dict[str, int]:
    return {} if _Attached.data_dir is None else pids_of(_Attached.data_dir)


@asynccontextmanager
async def running_system(
    environment: Mapping[str, str] | None = None, *arguments: str
) -> AsyncIterator[System]:
    """The attached system, if it is as asked for; else `floopy up`, ended afterwards."""
    known = attached_credentials()
    same = not arguments and (environment or {}).items() <= _Attached.environment.items()
    if known is not None and _Attached.data_dir is not None and same:
        async with _opened(_Attached.data_dir, known) as system:
            await system.simulator("config", {"auto": True})  # as it starts: others may have left it waiting
            yield system
        return
    async with started_system(environment, *arguments) as system:
        yield system


@asynccontextmanager
async def _opened(data_dir: Path, credentials: dict[str, Any]) -> AsyncIterator[System]:
    headers = {"Authorization": f"Bearer {credentials['api_key']}"}
    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        yield System(data_dir, credentials, session)


@asynccontextmanager
async def started_system(
    environment: Mapping[str, str] | None = None, *arguments: str
) -> AsyncIterator[System]:
    """`floopy up` in a process of its own on a fresh data directory, ended afterwards."""
    with tempfile.TemporaryDirectory(prefix="floopy-bench-") as scratch:
        data_dir = Path(scratch)
        command = [str(Path(sys.executable).parent / "floopy"), "up", "--port", "0", "--data-dir", scratch]
        log = data_dir / "up.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                [*command, *arguments], env={**os.environ, **(environment or {})}, stdout=out, stderr=out
            )
        try:
            credentials = await _credentials(data_dir, process, log)
            async with _opened(data_dir, credentials) as system:
                yield system
        finally:
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait, 60)


async def _credentials(data_dir: Path, process: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    async def there() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"floopy up ended:\n{log.read_text()[-2000:]}")
        return (data_dir / "credentials.json").exists()

    await until(there, READY_SECONDS, "a ready system")
    found: dict[str, Any] = json.loads((data_dir / "credentials.json").read_text())
    return found
