"""Reads what requests carry: JSON bodies, query parameters, the headers a batch remembers."""

import asyncio
import time
from typing import cast

import msgspec
from aiohttp import hdrs, web
from aiohttp.web import RequestPayloadError

from floopy_api.core.create import CreateOptions
from floopy_api.core.rules import shortened, too_long, whole_number, within, wrong_value
from floopy_api.errors import BadRequest, TooLarge, TooSlow, UnsupportedMediaType
from floopy_api.handlers.keys import PASSAGE
from floopy_api.handlers.middleware import route_of
from floopy_api.metrics import RECEIVED_BYTES
from floopy_api.ports import Order
from floopy_common.chassis.redaction import redact

MAX_JSON = 1024 * 1024
"""Bytes of any body that is no upload."""

JSON = "application/json"
_JSON_TIMEOUT = 30.0
_OWN_PREFIX = "floopy-"
_KEPT = frozenset({"user-agent", "x-request-id", "x-client-request-id"})
_CREDENTIALS = ("authorization", "key", "token", "secret", "password", "cookie", "credential")
_HEADER_CHARS = 512
_HEADERS_KEPT = 32
_IDEMPOTENCY_CHARS = 255
_MOST_RETRIES = 1_000


async def read_json(request: web.Request) -> object:
    """The decoded body; BadRequest unless it is JSON."""
    sent = media_type(request)
    if sent is not None and sent != JSON and not sent.endswith("+json"):
        raise unsupported(request, JSON)
    if (request.content_length or 0) > MAX_JSON:
        raise TooLarge(f"The request body is larger than {MAX_JSON} bytes.")
    try:
        async with asyncio.timeout(_JSON_TIMEOUT):
            body = await request.read()
    except TimeoutError:
        raise TooSlow("The request body did not arrive in time.") from None
    except RequestPayloadError:
        raise _not_json() from None
    RECEIVED_BYTES.labels(route_of(request)).inc(len(body))
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError):
        raise _not_json() from None


def media_type(request: web.Request) -> str | None:
    """What the body says it is, without parameters; None when it does not say."""
    return request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower() or None


def unsupported(request: web.Request, wanted: str) -> UnsupportedMediaType:
    sent = shortened(readable(request.headers.get(hdrs.CONTENT_TYPE, "")))
    message = (
        f"Unsupported content type: '{sent}'. This API method only accepts '{wanted}' requests, but you "
        f"specified the header 'Content-Type: {sent}'. Please try again with a supported content type."
    )
    return UnsupportedMediaType(message, code="unsupported_content_type")


def _not_json() -> BadRequest:
    return BadRequest("We could not parse the JSON body of your request. It must be one JSON object.")


def read_limit(request: web.Request, *, default: int, highest: int) -> int:
    text = request.query.get("limit")
    return default if text is None else within(whole_number(text, "limit"), "limit", 1, highest)


def read_order(request: web.Request) -> Order:
    order = request.query.get("order", "desc")
    if order not in {"asc", "desc"}:
        raise wrong_value("order", order, ("asc", "desc"))
    return cast("Order", order)


def read_options(request: web.Request) -> CreateOptions:
    """What the headers say about a batch to be created."""
    count = request.headers.get("x-stainless-retry-count", "")
    is_number = count.isascii() and count.isdigit() and len(count) <= 4
    return CreateOptions(
        headers=kept_headers(request),
        idempotency_key=read_idempotency_key(request),
        retry_count=min(int(count), _MOST_RETRIES) if is_number else 0,
        elapsed=time.monotonic() - request[PASSAGE].began,
    )


def read_idempotency_key(request: web.Request) -> str | None:
    """The key that makes repeats of one request harmless; None without one."""
    key = readable(request.headers.get("Idempotency-Key", "")).strip()
    if len(key) > _IDEMPOTENCY_CHARS:
        raise too_long("Idempotency-Key", _IDEMPOTENCY_CHARS, len(key))
    return key or None


def kept_headers(request: web.Request) -> dict[str, str]:
    """Ours and a few others, by their lower-case names; nothing that could be a credential."""
    kept: dict[str, str] = {}
    for name in dict.fromkeys(name.lower() for name in request.headers):
        own = name.startswith(_OWN_PREFIX)
        if not own and name not in _KEPT:
            continue
        if own and any(word in name for word in _CREDENTIALS):
            continue
        value = readable(", ".join(request.headers.getall(name)))
        if own and len(value) > _HEADER_CHARS:
            raise too_long(name, _HEADER_CHARS, len(value))
        kept[name] = redact(value[:_HEADER_CHARS])
    if len(kept) > _HEADERS_KEPT:
        raise BadRequest(f"At most {_HEADERS_KEPT} headers may start with '{_OWN_PREFIX}'.")
    return kept


def readable(text: str) -> str:
    """Header text as UTF-8, whatever bytes were sent: only whole characters can be stored."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


async def wait_to_be_asked(_: web.Request) -> None:
    """Answers `Expect: 100-continue` with nothing yet: the handler may refuse from the head alone."""


async def ask_for_body(request: web.Request) -> None:
    """Tell a client that waits to be asked that its body is wanted."""
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        writer = request.writer
        await writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        writer.output_size = 0
