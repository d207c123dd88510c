"""HTTP handlers of /messages and /models."""

from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from floopy_simulator.anthropic import models
from floopy_simulator.anthropic.answers import Answer, answer
from floopy_simulator.anthropic.caller import Caller
from floopy_simulator.anthropic.errors import plain_error, too_large
from floopy_simulator.anthropic.paging import page
from floopy_simulator.anthropic.request_rules import Rules
from floopy_simulator.anthropic.responses import json_response, raw_response
from floopy_simulator.config import Config
from floopy_simulator.executions import count_executions
from floopy_simulator.journal import Journal

MAX_REQUEST = 32_000_000
"""Bytes of one request outside a batch."""


class InferenceHandlers:
    def __init__(
        self,
        *,
        config: Callable[[], Config],
        journal: Journal,
        executions: dict[str, int],
        ledger_path: Path,
    ) -> None:
        self._config = config
        self._journal = journal
        self._executions = executions
        self._ledger_path = ledger_path

    async def list_models(self, request: web.Request, _: Caller) -> web.StreamResponse:
        return json_response(
            page(request, models.list_models(self._config().anthropic_models), models.to_wire)
        )

    async def get_model(self, request: web.Request, _: Caller) -> web.StreamResponse:
        name = request.match_info["model"]
        model = models.require_model(name, self._config().anthropic_models)
        return json_response(models.to_wire(models.Listing(models.resolve(name), model)))

    async def message(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        body = await request.read()
        if len(body) > MAX_REQUEST:
            raise too_large()
        rules = Rules(caller.version, caller.betas, self._config().anthropic_models, batch=False)
        executed, fresh = count_executions(self._executions)
        answered = answer(body, rules, executed)
        self._journal.write_executions(fresh)
        self._note(answered)
        if answered.message is None:
            raise answered.error or plain_error(500)
        return raw_response(answered.message)

    def _note(self, answered: Answer) -> None:
        usage = b"null" if answered.usage is None else answered.usage.wire
        line = b'{"batch":null,"custom_id":null,"body_sha":"%b","status_code":%d,"usage":%b}\n'
        with self._ledger_path.open("ab") as ledger:
            ledger.write(line % (answered.body_sha.encode(), answered.status, usage))
