"""The control API under /_sim: clock, configuration, faults, batches and the ledger."""

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from floopy_simulator.anthropic.batches import Batch as MessageBatch
from floopy_simulator.config import changed
from floopy_simulator.faults import Fault, Script
from floopy_simulator.openai.batches import DATED, Batch, LineError, Status
from floopy_simulator.simulator import Simulator

CALL_FIELDS = ("seq", "at", "provider", "op", "method", "path", "key", "status", "accepted", "fault")
CHUNK = 1 << 18


class ClockChange(msgspec.Struct, forbid_unknown_fields=True):
    advance: float


class Advance(msgspec.Struct, forbid_unknown_fields=True):
    to: Status
    completed: int | None = None
    errors: list[LineError] = []


class Control:
    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def register(self, app: web.Application) -> None:
        app.router.add_get("/healthz", self.health)
        for method, path, handler in (
            ("GET", "/clock", self.show_clock),
            ("POST", "/clock", self.move_clock),
            ("GET", "/config", self.show_config),
            ("POST", "/config", self.change_config),
            ("GET", "/faults", self.list_faults),
            ("POST", "/faults", self.add_fault),
            ("DELETE", "/faults", self.clear_faults),
            ("GET", "/faults/{id}", self.show_fault),
            ("DELETE", "/faults/{id}", self.remove_fault),
            ("POST", "/faults/{id}/release", self.release_fault),
            ("POST", "/batches/{id}/advance", self.advance_batch),
            ("GET", "/ledger", self.show_ledger),
            ("GET", "/ledger/lines", self.stream_lines),
            ("GET", "/ledger/executions", self.stream_executions),
        ):
            app.router.add_route(method, "/_sim" + path, handler)

    async def health(self, _: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def show_clock(self, _: web.Request) -> web.Response:
        return _json({"now": self._simulator.clock.now(), "offset": self._simulator.clock.offset})

    async def move_clock(self, request: web.Request) -> web.Response:
        change = msgspec.json.decode(await request.read(), type=ClockChange)
        self._simulator.move_clock(change.advance)
        return await self.show_clock(request)

    async def show_config(self, _: web.Request) -> web.Response:
        return _json(self._simulator.config)

    async def change_config(self, request: web.Request) -> web.Response:
        patch = msgspec.json.decode(await request.read(), type=dict[str, Any])
        self._simulator.configure(changed(self._simulator.config, patch))
        return _json(self._simulator.config)

    async def list_faults(self, _: web.Request) -> web.Response:
        return _json({"faults": [_fault(fault) for fault in self._simulator.book.all()]})

    async def add_fault(self, request: web.Request) -> web.Response:
        script = msgspec.json.decode(await request.read(), type=Script)
        return _json(_fault(self._simulator.book.add(script)))

    async def clear_faults(self, _: web.Request) -> web.Response:
        self._simulator.book.remove()
        return _json({"faults": []})

    async def show_fault(self, request: web.Request) -> web.Response:
        return _json(_fault(self._find_fault(request)))

    async def remove_fault(self, request: web.Request) -> web.Response:
        fault = self._find_fault(request)
        self._simulator.book.remove(fault.id)
        return _json(_fault(fault))

    async def release_fault(self, request: web.Request) -> web.Response:
        fault = self._find_fault(request)
        fault.release()
        return _json(_fault(fault))

    async def advance_batch(self, request: web.Request) -> web.Response:
        message_batch = self._simulator.anthropic.find(request.match_info["id"])
        if message_batch is not None:
            return await self._advance_message_batch(message_batch, request)
        batch = self._find_batch(request.match_info["id"])
        advance = msgspec.json.decode(await request.read(), type=Advance)
        if batch.is_terminal:
            raise web.HTTPConflict(text=f"the batch is {batch.status}")
        await self._simulator.runner.advance(batch, advance.to, advance.completed, advance.errors)
        return _json(self._simulator.to_wire(batch))

    async def _advance_message_batch(self, batch: MessageBatch, request: web.Request) -> web.Response:
        if batch.is_terminal:
            raise web.HTTPConflict(text=f"the batch is {batch.status}")
        origin = str(request.url.origin())
        return _json(await self._simulator.anthropic.advance(batch, await request.read(), origin))

    async def show_ledger(self, request: web.Request) -> web.Response:
        after = int(request.query.get("after", "0"))
        calls = [
            {**dict(zip(CALL_FIELDS, row, strict=True)), "accepted": bool(row[8])}
            for row in self._simulator.journal.read_calls(after)
        ]
        batches = [_ledger_batch(batch) for batch in self._simulator.batches.batches.values()]
        batches.extend(self._simulator.anthropic.ledger_batches())
        return _json({"calls": calls, "batches": batches})

    async def stream_lines(self, request: web.Request) -> web.StreamResponse:
        message_batch = self._simulator.anthropic.find(request.query.get("batch", ""))
        if message_batch is not None:
            return await _stream(request, [self._simulator.anthropic.ledger_source(message_batch)])
        batch = self._find_batch(request.query.get("batch", ""))
        path = self._simulator.batches.ledger_path(batch)
        return await _stream(request, [(path, batch.totals.ledger_bytes)])

    async def stream_executions(self, request: web.Request) -> web.StreamResponse:
        simulator = self._simulator
        sources = [
            (simulator.batches.ledger_path(batch), batch.totals.ledger_bytes)
            for batch in simulator.batches.batches.values()
        ]
        chat = simulator.chat_ledger_path
        sources.append((chat, chat.stat().st_size if chat.exists() else 0))
        return await _stream(request, [*sources, *simulator.anthropic.ledger_sources()])

    def _find_fault(self, request: web.Request) -> Fault:
        number = request.match_info["id"]
        fault = self._simulator.book.find(int(number)) if number.isdigit() else None
        if fault is None:
            raise web.HTTPNotFound(text=f"no fault {number}")
        return fault

    def _find_batch(self, batch_id: str) -> Batch:
        batch = self._simulator.batches.batches.get(batch_id)
        if batch is None:
            raise web.HTTPNotFound(text=f"no batch {batch_id!r}")
        return batch


@web.middleware
async def refuse_bad_input(
    request: web.Request, handler: Any
) -> web.StreamResponse:  # aiohttp's handler type
    """A control call that cannot be decoded is the caller's mistake, not a crash."""
    try:
        response: web.StreamResponse = await handler(request)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        if not request.path.startswith("/_sim/"):
            raise
        return web.json_response({"error": str(error)}, status=400)
    return response


def _json(body: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


def _fault(fault: Fault) -> dict[str, object]:
    script = msgspec.to_builtins(fault.script)
    return {"id": fault.id, **script, "seen": fault.seen, "hits": fault.hits, "waiting": fault.waiting}


def _ledger_batch(batch: Batch) -> dict[str, object]:
    return {
        "provider": "openai",
        "id": batch.id,
        "key": batch.key,
        "status": batch.status,
        "endpoint": batch.endpoint,
        "model": batch.model,
        "input_file_id": batch.input_file_id,
        "metadata": batch.metadata,
        "lines": batch.total,
        "executed": batch.totals.done,
        "completed": batch.totals.completed,
        "failed": batch.totals.failed,
        "created_at": batch.created_at,
        **{f"{status}_at": batch.times.get(status) for status in DATED},
    }


async def _stream(request: web.Request, sources: Iterable[tuple[Path, int]]) -> web.StreamResponse:
    """Only what has been recorded: a file may already be longer."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    for path, size in sources:
        async for chunk in _chunks(path, size):
            await response.write(chunk)
    await response.write_eof()
    return response


async def _chunks(path: Path, size: int) -> AsyncIterator[bytes]:
    if not size:
        return
    with path.open("rb") as content:
        while size > 0:
            chunk = content.read(min(CHUNK, size))
            if not chunk:
                return
            size -= len(chunk)
            yield chunk
