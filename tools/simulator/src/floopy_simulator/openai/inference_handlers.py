"""HTTP handlers of the synchronous endpoints and of /models."""

from collections.abc import Callable
from pathlib import Path

import msgspec
from aiohttp import web

from floopy_simulator.clock import Clock
from floopy_simulator.config import Config
from floopy_simulator.executions import count_executions
from floopy_simulator.journal import Journal
from floopy_simulator.openai import models
from floopy_simulator.openai.answers import Answer, answer
from floopy_simulator.openai.endpoints import CHAT, ENDPOINTS
from floopy_simulator.openai.errors import ApiError
from floopy_simulator.openai.responses import json_response, raw_response


class ModelHead(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None


class InferenceHandlers:
    def __init__(
        self,
        *,
        clock: Clock,
        config: Callable[[], Config],
        journal: Journal,
        executions: dict[str, int],
        ledger_path: Path,
    ) -> None:
        self._clock = clock
        self._config = config
        self._journal = journal
        self._executions = executions
        self._ledger_path = ledger_path

    async def list_models(self, _: web.Request, _key: str) -> web.StreamResponse:
        listed = [models.to_wire(model) for model in models.list_ids(self._config().models)]
        return json_response({"object": "list", "data": listed})

    async def get_model(self, request: web.Request, _key: str) -> web.StreamResponse:
        model = request.match_info["model"]
        if not models.is_known(model, self._config().models):
            raise _no_model(model)
        return json_response(models.to_wire(model))

    async def chat(self, request: web.Request, _key: str) -> web.StreamResponse:
        body = await request.read()
        self._check_model(body)
        executed, fresh = count_executions(self._executions)
        answered = answer(ENDPOINTS[CHAT], body, created=int(self._clock.now()), executed=executed)
        self._journal.write_executions(fresh)
        self._note(answered)
        return raw_response(answered.body, answered.status)

    def _check_model(self, body: bytes) -> None:
        try:
            head = msgspec.json.decode(body, type=ModelHead)
        except msgspec.DecodeError:
            return
        if head.model is not None and not models.is_known(head.model, self._config().models):
            raise _no_model(head.model)
        if head.stream:
            message = "This simulator does not stream; send 'stream': false."
            raise ApiError(400, message, param="stream", code="unsupported_value")

    def _note(self, answered: Answer) -> None:
        usage = b"null" if answered.usage is None else answered.usage.wire
        line = b'{"batch":null,"custom_id":null,"body_sha":"%b","status_code":%d,"usage":%b}\n'
        with self._ledger_path.open("ab") as ledger:
            ledger.write(line % (answered.body_sha.encode(), answered.status, usage))


def _no_model(model: str) -> ApiError:
    message = f"The model `{model}` does not exist or you do not have access to it."
    return ApiError(404, message, param="model", code="model_not_found")
