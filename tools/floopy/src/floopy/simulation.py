"""A provider simulator of a test's own: its process, and its control API that scripts and reports."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import aiohttp

KEPT = frozenset({"validating", "in_progress", "finalizing", "completed"})
"""Statuses of provider batches that nobody cancelled."""
STOP_TIMEOUT = 20.0


class _Addresses:
    """Where a simulator is reached."""

    url: str

    @property
    def openai_base_url(self) -> str:
        return f"{self.url}/openai/v1"

    @property
    def anthropic_base_url(self) -> str:
        return f"{self.url}/anthropic"


class Simulator(_Addresses):
    """The control API of a running simulator: what tests script, and the ledger they trust."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def configure(self, **values: Any) -> None:
        await self._post("/_sim/config", values)

    async def fault(self, op: str, action: dict[str, Any], *, times: int | None = 1, **match: Any) -> str:
        """Scripts a fault and returns its id."""
        fault = {"match": {"op": op, **match}, "times": times, "action": action}
        answer: dict[str, Any] = await self._post("/_sim/faults", fault)
        return str(answer["id"])

    async def fault_state(self, fault_id: str) -> dict[str, Any]:
        state: dict[str, Any] = await self._get(f"/_sim/faults/{fault_id}")
        return state

    async def lift(self, fault_id: str) -> None:
        await self._read("DELETE", f"/_sim/faults/{fault_id}")

    async def release(self, fault_id: str) -> None:
        await self._post(f"/_sim/faults/{fault_id}/release", {})

    async def advance(self, batch_id: str, to: str, completed: int | None = None, **more: Any) -> None:
        counts = {} if completed is None else {"completed": completed}
        await self._post(f"/_sim/batches/{batch_id}/advance", {"to": to, **counts, **more})

    async def advance_clock(self, seconds: float) -> None:
        await self._post("/_sim/clock", {"advance": seconds})

    async def calls(self, op: str) -> list[dict[str, Any]]:
        """Every call of one kind, those without effect too, oldest first."""
        ledger = await self._get("/_sim/ledger")
        return [call for call in ledger["calls"] if call["op"] == op]

    async def batches(self) -> list[dict[str, Any]]:
        """Every provider batch that ever existed, oldest first."""
        ledger = await self._get("/_sim/ledger")
        return sorted(ledger["batches"], key=lambda batch: (batch["created_at"], batch["id"]))

    async def executions(self) -> list[dict[str, Any]]:
        """Every line that was ever executed."""
        text = await self._read("GET", "/_sim/ledger/executions")
        return [json.loads(line) for line in text.split("\n") if line]

    async def assert_nothing_twice(self) -> None:
        """No line was answered with usage by two provider batches that were kept."""
        batches = {batch["id"]: batch for batch in await self.batches()}
        kept = {name for name, batch in batches.items() if batch["status"] in KEPT or batch["completed"]}
        twice = _answered_twice(await self.executions(), kept)
        assert twice == [], f"{len(twice)} lines were answered with usage more than once"

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        text = await self._read("POST", path, body)
        return json.loads(text) if text else {}

    async def _get(self, path: str) -> Any:
        return json.loads(await self._read("GET", path))

    async def _read(self, method: str, path: str, body: dict[str, Any] | None = None) -> str:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, json=body) as answer,
        ):
            text = await answer.text()
            assert answer.status < 300, f"{path}: {answer.status} {text}"
            return text


def _answered_twice(executions: Iterable[dict[str, Any]], kept: set[str]) -> list[str]:
    paid = Counter(
        execution["body_sha"]
        for execution in executions
        if execution["usage"] is not None and execution["batch"] in kept
    )
    return [sha for sha, times in paid.items() if times > 1]


class SimulatorProcess(_Addresses):
    """A simulator in a process of ours; a start after `kill` goes on where the killed one stopped."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.start()

    def start(self) -> None:
        """Returns when it listens, on any free port."""
        command = (sys.executable, "-m", "floopy_simulator", "--data-dir", str(self._directory))
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        if self.process.stdout is None:
            raise AssertionError("a process with a pipe has an output")
        with self.process.stdout as output:
            self.url = json.loads(output.readline())["url"]

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """Ends it politely and returns its exit code."""
        self.process.terminate()
        return self.process.wait(STOP_TIMEOUT)

    def end(self) -> None:
        """Leaves nothing running, whatever the test did."""
        if self.process.poll() is None:
            self.kill()


class OwnSimulator(SimulatorProcess, Simulator):
    """Both: a process and its control API."""
