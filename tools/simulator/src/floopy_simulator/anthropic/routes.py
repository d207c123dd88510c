"""Every URL of the Anthropic half, who may call it and what its errors look like."""

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from floopy_simulator.anthropic.batch_handlers import PREFIX, BatchHandlers
from floopy_simulator.anthropic.caller import Caller, identify, read_key
from floopy_simulator.anthropic.errors import ApiError, plain_error
from floopy_simulator.anthropic.inference_handlers import InferenceHandlers
from floopy_simulator.anthropic.responses import add_headers, error_response, new_request_id
from floopy_simulator.clock import Clock
from floopy_simulator.config import Config
from floopy_simulator.gate import Gate

logger = logging.getLogger(__name__)
PROVIDER = "anthropic"
BATCHES = "/messages/batches"
Operation = Callable[[web.Request, Caller], Awaitable[web.StreamResponse]]


class Routes:
    def __init__(
        self,
        *,
        gate: Gate,
        clock: Clock,
        config: Callable[[], Config],
        batches: BatchHandlers,
        inference: InferenceHandlers,
    ) -> None:
        self._gate = gate
        self._clock = clock
        self._config = config
        self._batches = batches
        self._inference = inference

    def register(self, app: web.Application) -> None:
        batches, inference = self._batches, self._inference
        table = (
            ("POST", BATCHES, "messages.batches.create", batches.create),
            ("GET", BATCHES, "messages.batches.list", batches.list),
            ("GET", BATCHES + "/{batch_id}", "messages.batches.get", batches.get),
            ("DELETE", BATCHES + "/{batch_id}", "messages.batches.delete", batches.delete),
            ("POST", BATCHES + "/{batch_id}/cancel", "messages.batches.cancel", batches.cancel),
            ("GET", BATCHES + "/{batch_id}/results", "messages.batches.results", batches.results),
            ("POST", "/messages", "messages", inference.message),
            ("GET", "/models", "models.list", inference.list_models),
            ("GET", "/models/{model}", "models.get", inference.get_model),
        )
        for method, path, op, operation in table:
            app.router.add_route(method, PREFIX + path, self._handler(op, operation))
        for path in dict.fromkeys(path for _, path, _, _ in table):
            app.router.add_route("*", PREFIX + path, self._handler("unknown", _no_such_method))
        app.router.add_route("*", PREFIX + "/{rest:.*}", self._handler("unknown", _no_such_url))

    def _handler(
        self, op: str, operation: Operation
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            request_id = new_request_id()
            response = await self._gate.pass_through(
                request,
                provider=PROVIDER,
                op=op,
                key=read_key(request),
                file=None,
                handler=lambda asked: self._guard(asked, op, operation, request_id),
                error_body=lambda status: plain_error(status).body(request_id),
            )
            add_headers(response, request_id, self._clock.now())
            return response

        return handle

    async def _guard(
        self, request: web.Request, op: str, operation: Operation, request_id: str
    ) -> web.StreamResponse:
        try:
            return await operation(request, identify(request, self._config().revoked_keys))
        except ApiError as error:
            return error_response(error, request_id)
        except web.HTTPException as error:
            return error_response(plain_error(error.status), request_id)
        except ConnectionError:
            raise
        except Exception:
            logger.exception("call failed", extra={"event": "call_failed", "op": op})
            return error_response(plain_error(500), request_id)


async def _no_such_method(_: web.Request, __: Caller) -> web.StreamResponse:
    raise plain_error(405)


async def _no_such_url(_: web.Request, __: Caller) -> web.StreamResponse:
    raise plain_error(404)
