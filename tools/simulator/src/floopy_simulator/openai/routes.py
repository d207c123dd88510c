"""Every URL of the OpenAI half, who may call it and what its errors look like."""

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from floopy_simulator.config import Config
from floopy_simulator.gate import Gate
from floopy_simulator.openai.batch_handlers import BatchHandlers
from floopy_simulator.openai.errors import ApiError, plain_error
from floopy_simulator.openai.file_handlers import FileHandlers
from floopy_simulator.openai.inference_handlers import InferenceHandlers
from floopy_simulator.openai.responses import add_headers, error_response

logger = logging.getLogger(__name__)
PREFIX = "/openai/v1"
PROVIDER = "openai"
Operation = Callable[[web.Request, str], Awaitable[web.StreamResponse]]


class Routes:
    def __init__(
        self,
        *,
        gate: Gate,
        config: Callable[[], Config],
        files: FileHandlers,
        batches: BatchHandlers,
        inference: InferenceHandlers,
    ) -> None:
        self._gate = gate
        self._config = config
        self._files = files
        self._batches = batches
        self._inference = inference

    def register(self, app: web.Application) -> None:
        files, batches, inference = self._files, self._batches, self._inference
        for method, path, op, operation in (
            ("POST", "/files", "files.create", files.create),
            ("GET", "/files", "files.list", files.list),
            ("GET", "/files/{file_id}", "files.get", files.get),
            ("DELETE", "/files/{file_id}", "files.delete", files.delete),
            ("GET", "/files/{file_id}/content", "files.content", files.content),
            ("POST", "/batches", "batches.create", batches.create),
            ("GET", "/batches", "batches.list", batches.list),
            ("GET", "/batches/{batch_id}", "batches.get", batches.get),
            ("POST", "/batches/{batch_id}/cancel", "batches.cancel", batches.cancel),
            ("POST", "/chat/completions", "chat", inference.chat),
            ("GET", "/models", "models.list", inference.list_models),
            ("GET", "/models/{model:.+}", "models.get", inference.get_model),
        ):
            app.router.add_route(method, PREFIX + path, self._handler(op, operation))
        app.router.add_route("*", PREFIX + "/{rest:.*}", self._handler("unknown", _no_such_url))

    def _handler(
        self, op: str, operation: Operation
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                return await operation(request, self._authenticate(request))
            except ApiError as error:
                return error_response(error)
            except web.HTTPException as error:
                return error_response(plain_error(error.status))
            except ConnectionError:
                raise
            except Exception:
                logger.exception("call failed", extra={"event": "call_failed", "op": op})
                return error_response(plain_error(500))

        async def handle(request: web.Request) -> web.StreamResponse:
            response = await self._gate.pass_through(
                request,
                provider=PROVIDER,
                op=op,
                key=_bearer(request),
                file=self._files.origin(request),
                handler=guarded,
                error_body=lambda status: plain_error(status).body,
            )
            add_headers(response)
            return response

        return handle

    def _authenticate(self, request: web.Request) -> str:
        """The key is the project: everything is scoped to it."""
        key = _bearer(request)
        if key is None:
            message = (
                "You didn't provide an API key. You need to provide your API key in an Authorization header "
                "using Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
            )
            raise ApiError(401, message)
        if not key.startswith("sk-") or key in self._config().revoked_keys:
            message = f"Incorrect API key provided: {key[:3]}***{key[-4:]}."
            raise ApiError(401, message, code="invalid_api_key")
        return key


def _bearer(request: web.Request) -> str | None:
    kind, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() if kind.lower() == "bearer" and key.strip() else None


async def _no_such_url(request: web.Request, _: str) -> web.StreamResponse:
    known = request.match_info.route.resource is not None and _is_known_path(request)
    path = request.path.removeprefix("/openai")
    if known:
        raise ApiError(405, f"Not allowed to {request.method} on {path}.")
    raise ApiError(404, f"Invalid URL ({request.method} {path})")


def _is_known_path(request: web.Request) -> bool:
    raw = request.rel_url.raw_path
    return any(
        resource.get_info().get("path") == raw or _matches(resource, raw)
        for resource in request.app.router.resources()
        if "{rest" not in resource.canonical
    )


def _matches(resource: web.AbstractResource, raw: str) -> bool:
    pattern = resource.get_info().get("pattern")
    return pattern is not None and pattern.fullmatch(raw) is not None
