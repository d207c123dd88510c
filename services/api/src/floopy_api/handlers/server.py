"""The HTTP server around the application: what its parser refuses is answered like everything else."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest
from typing_extensions import override

from floopy_api.handlers.responses import HEADERS, error_response
from floopy_common.domain.ids import new_request_id
from floopy_common.openai.errors import INVALID_REQUEST, SERVER_ERROR

_log = logging.getLogger(__name__)
_SORRY = "The server had an error while processing your request. Sorry about that!"
_MALFORMED = "The request is not well-formed HTTP/1.1, or its head is too large."
_UNEXPECTED = "The request expects what this server does not do: Expect may only be '100-continue'."

_Handler = Callable[[BaseRequest], Awaitable[web.StreamResponse]]


class _Protocol(RequestHandler):
    """One connection. What never became a request has no route, so no middleware sees it."""

    __slots__ = ()

    @override
    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a malformed request, or one that failed outside every middleware; the last here."""
        request_id = new_request_id()
        fields = {"event": "request_malformed", "request_id": request_id, "status": status}
        if status >= 500:
            _log.error("request failed", extra={**fields, "event": "request_failed"}, exc_info=exc)
        else:
            # the parser's message may repeat bytes of the request, a key among them
            _log.info("malformed request", extra={**fields, "error": type(exc).__name__})
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is on its way already")
        kind = SERVER_ERROR if status >= 500 else INVALID_REQUEST
        return _last_answer(status, kind, _SORRY if status >= 500 else _MALFORMED, request_id)


def _last_answer(status: int, kind: str, message: str, request_id: str) -> web.Response:
    """An error of a request that no middleware saw; its connection ends with it."""
    answer = error_response(status, kind, message)
    answer.headers.update({**HEADERS, "x-request-id": request_id})
    answer.force_close()
    return answer


def _expecting(handler: _Handler) -> _Handler:
    """The application, whose look at `Expect` comes before every middleware."""

    async def handle(request: BaseRequest) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPExpectationFailed as error:
            request_id = new_request_id()
            fields = {"event": "request_malformed", "request_id": request_id, "status": error.status}
            _log.info("malformed request", extra={**fields, "error": type(error).__name__})
            return _last_answer(error.status, INVALID_REQUEST, _UNEXPECTED, request_id)

    return handle


class _Server(web.Server):
    @override
    def __call__(self) -> RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """aiohttp's runner of an application, with this server."""

    __slots__ = ()

    @override
    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            _expecting(made.request_handler),
            request_factory=made.request_factory,
            loop=asyncio.get_running_loop(),
            **made._kwargs,  # noqa: SLF001 - aiohttp has no public way to choose the protocol
        )
