"""The simulator's control API: what tests script, and the ledger they trust."""

import json
from collections import Counter
from typing import Any

import aiohttp

KEPT = frozenset({"validating", "in_progress", "finalizing", "completed"})
"""Statuses of provider batches that nobody cancelled."""


class Simulator:
    def __init__(self, url: str) -> None:
        self._url = url

    async def configure(self, **values: Any) -> None:
        await self._post("/_sim/config", values)

    async def fault(self, op: str, action: dict[str, Any], *, times: int | None = 1, **match: Any) -> str:
        """Script a fault; its id."""
        answer = await self._post(
            "/_sim/faults", {"match": {"op": op, **match}, "times": times, "action": action}
        )
        return answer["id"]

    async def fault_state(self, fault_id: str) -> dict[str, Any]:
        return await self._get(f"/_sim/faults/{fault_id}")

    async def release(self, fault_id: str) -> None:
        await self._post(f"/_sim/faults/{fault_id}/release", {})

    async def advance(self, batch_id: str, to: str, completed: int | None = None) -> None:
        body = {"to": to} if completed is None else {"to": to, "completed": completed}
        await self._post(f"/_sim/batches/{batch_id}/advance", body)

    async def advance_clock(self, seconds: float) -> None:
        await self._post("/_sim/clock", {"advance": seconds})

    async def calls(self, op: str) -> list[dict[str, Any]]:
        ledger = await self._get("/_sim/ledger")
        return [call for call in ledger["calls"] if call["op"] == op]

    async def batches(self) -> list[dict[str, Any]]:
        """Every provider batch that ever existed, oldest first."""
        ledger = await self._get("/_sim/ledger")
        return sorted(ledger["batches"], key=lambda batch: (batch["created_at"], batch["id"]))

    async def executions(self) -> list[dict[str, Any]]:
        """Every line that was ever executed."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self._url}/_sim/ledger/executions") as answer,
        ):
            return [json.loads(line) async for line in answer.content if line.strip()]

    async def assert_nothing_twice(self) -> None:
        """No line was answered with usage by two provider batches that were kept."""
        batches = {batch["id"]: batch for batch in await self.batches()}
        kept = {name for name, batch in batches.items() if batch["status"] in KEPT or batch["completed"]}
        paid = Counter(
            execution["body_sha"]
            for execution in await self.executions()
            if execution["usage"] is not None and execution["batch"] in kept
        )
        twice = [sha for sha, times in paid.items() if times > 1]
        assert twice == [], f"{len(twice)} lines were answered with usage more than once"

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        async with aiohttp.ClientSession() as session, session.post(self._url + path, json=body) as answer:
            text = await answer.text()
            assert answer.status < 300, f"{path}: {answer.status} {text}"
            return json.loads(text) if text else {}

    async def _get(self, path: str) -> dict[str, Any]:
        async with aiohttp.ClientSession() as session, session.get(self._url + path) as answer:
            assert answer.status == 200, f"{path}: {answer.status}"
            return await answer.json()
