"""Around every handler: who calls, what went wrong, what is counted and logged."""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cache

from aiohttp import web
from prometheus_client import Counter, Histogram

from floopy_api.errors import (
    BadRequest,
    Conflict,
    NotFound,
    QuotaExceeded,
    RangeUnsatisfiable,
    Refusal,
    TooLarge,
    TooMany,
    TooSlow,
    Unauthenticated,
    UnsupportedEncoding,
    UnsupportedMediaType,
)
from floopy_api.handlers.keys import AUTHENTICATOR, CALLER, LIMITS, PASSAGE, TRAFFIC, Passage
from floopy_api.handlers.responses import error_response, refusal_response
from floopy_api.metrics import REQUEST_SECONDS, REQUESTS, SENT_BYTES
from floopy_common.chassis.mongo import DatabaseError
from floopy_common.domain.errors import Transient
from floopy_common.domain.ids import new_request_id
from floopy_common.openai.errors import INSUFFICIENT_QUOTA, INVALID_REQUEST, RATE_LIMITED, SERVER_ERROR

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = logging.getLogger(__name__)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CLIENT_LEFT = 499
_RETRY_AFTER = "2"
"""Seconds: a primary is elected in a few; SDKs heed nothing above 60."""
_LOGGED_CHARS = 200
_FINAL = {"x-should-retry": "false"}
"""SDKs repeat every 409 and 429 unless told that it is useless."""
PUBLIC_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json"})


@dataclass(frozen=True)
class Answer:
    status: int
    kind: str = INVALID_REQUEST
    headers: dict[str, str] = field(default_factory=dict)


ANSWERS: dict[type[Refusal], Answer] = {
    BadRequest: Answer(400),
    Unauthenticated: Answer(401, headers={"WWW-Authenticate": "Bearer"}),
    NotFound: Answer(404),
    TooSlow: Answer(408, headers={"Connection": "close"}),
    Conflict: Answer(409, headers=_FINAL),
    TooLarge: Answer(413, headers={"Connection": "close"}),
    UnsupportedEncoding: Answer(415),
    UnsupportedMediaType: Answer(415),
    RangeUnsatisfiable: Answer(416),
    TooMany: Answer(429, RATE_LIMITED),
    QuotaExceeded: Answer(429, INSUFFICIENT_QUOTA, _FINAL),
}
"""How each refusal is answered."""


def route_of(request: web.Request) -> str:
    """The route's template, so that metrics have no ids in them."""
    resource = request.match_info.route.resource
    return "unknown" if resource is None else resource.canonical


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id; count, time and log its answer."""
    passage = Passage(new_request_id(), time.monotonic())
    request[PASSAGE] = passage
    status = _CLIENT_LEFT
    try:
        with request.app[TRAFFIC].one_more():
            response = await handler(request)
        status = response.status
        if isinstance(response, web.Response):
            SENT_BYTES.labels(route_of(request)).inc(response.content_length or 0)
        return response  # noqa: TRY300 - the status is recorded below, whichever way this ends
    except ConnectionError:
        # nobody is left to be answered; the closed transport keeps the server from trying
        return web.Response(status=_CLIENT_LEFT)
    finally:
        _record(request, passage, status)


def _record(request: web.Request, passage: Passage, status: int) -> None:
    route, seconds = route_of(request), time.monotonic() - passage.began
    method = request.method if request.method in _METHODS else "other"
    _counter(route, method, status).inc()
    _histogram(route, method).observe(seconds)
    if route in PUBLIC_PATHS:
        return
    caller = request.get(CALLER)
    fields = {
        "event": "request",
        "request_id": passage.request_id,
        "method": method,
        "route": route,
        "status": status,
        "ms": round(seconds * 1000, 1),
        "org_id": None if caller is None else caller.org_id,
        "api_key_id": None if caller is None else caller.key_id,
        "client_request_id": _named_by_client(request),
    }
    _log.info("request", extra=fields)


@cache
def _counter(route: str, method: str, status: int) -> Counter:
    return REQUESTS.labels(route, method, str(status))


@cache
def _histogram(route: str, method: str) -> Histogram:
    return REQUEST_SECONDS.labels(route, method)


def _named_by_client(request: web.Request) -> str | None:
    """The id a client has for its request: for the log alone."""
    name = request.headers.get("x-client-request-id") or request.headers.get("x-request-id")
    return None if name is None else name.encode(errors="replace").decode()[:_LOGGED_CHARS]


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever is raised into OpenAI's envelope, without details of ours."""
    try:
        return await handler(request)
    except Refusal as refusal:
        return _refused(refusal)
    except web.HTTPException as error:
        return _http_error(request, error)
    except (DatabaseError, Transient) as error:
        return _unavailable(request, error)
    except ConnectionError:
        raise
    except Exception:  # noqa: BLE001 - whatever it was, the client gets an envelope and the log the rest
        _log.exception(
            "request failed", extra={"event": "request_failed", "request_id": request[PASSAGE].request_id}
        )
        message = "The server had an error while processing your request. Sorry about that!"
        return error_response(500, SERVER_ERROR, message)


def _refused(refusal: Refusal) -> web.Response:
    answer = ANSWERS[type(refusal)]
    headers = dict(answer.headers)
    if isinstance(refusal, RangeUnsatisfiable):
        headers["Content-Range"] = f"bytes */{refusal.size}"
    if isinstance(refusal, TooMany):
        headers["retry-after"] = str(refusal.retry_after)
    return refusal_response(refusal, answer.status, answer.kind, headers)


def _http_error(request: web.Request, error: web.HTTPException) -> web.Response:
    """What aiohttp itself refuses: unknown URLs, methods, oversized bodies."""
    where = f"({request.method[:20]} {request.path[:_LOGGED_CHARS]})".encode(errors="replace").decode()
    if isinstance(error, web.HTTPMethodNotAllowed):
        headers = {"Allow": ", ".join(sorted(error.allowed_methods))}
        return error_response(405, INVALID_REQUEST, f"Method not allowed {where}", headers=headers)
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        answer = ANSWERS[TooLarge]
        return error_response(413, INVALID_REQUEST, "The request body is too large.", headers=answer.headers)
    if error.status == 404:
        return error_response(404, INVALID_REQUEST, f"Invalid URL {where}")
    return error_response(error.status, INVALID_REQUEST, f"The request was refused: {error.reason}.")


def _unavailable(request: web.Request, error: Exception) -> web.Response:
    _log.warning(
        "not available",
        extra={
            "event": "request_unavailable",
            "request_id": request[PASSAGE].request_id,
            "error": repr(error),
        },
    )
    message = "The service is not available right now. Please try again in a moment."
    return error_response(503, SERVER_ERROR, message, headers={"retry-after": _RETRY_AFTER})


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let nobody without a key of ours through, but for probes and URLs that lead nowhere; nor more at once
    than an organisation's share.
    """
    if request.match_info.http_exception is None and route_of(request) not in PUBLIC_PATHS:
        authorizations = request.headers.getall("Authorization", [])
        request[CALLER] = await request.app[AUTHENTICATOR].authenticate(authorizations)
        _refuse_encoding(request)
        limiter = request.app[LIMITS].of(request.method, route_of(request))
        if limiter is not None:
            with limiter.one_more(request[CALLER].org_id):
                return await handler(request)
    return await handler(request)


def _refuse_encoding(request: web.Request) -> None:
    """A compressed body may be any size once it is undone, so none is taken."""
    encodings = ", ".join(request.headers.getall("Content-Encoding", ["identity"]))
    if any(encoding.strip().lower() != "identity" for encoding in encodings.split(",")):
        raise UnsupportedEncoding("Request bodies must be sent without Content-Encoding.")
