"""Answers: JSON bodies, OpenAI's error envelope, and the headers every answer has."""

import time
from collections.abc import Mapping

import msgspec
from aiohttp import web

from floopy_api.errors import Refusal
from floopy_api.handlers.keys import CALLER, PASSAGE, TRAFFIC
from floopy_common.openai.errors import ErrorEnvelope, ErrorObject

_encoder = msgspec.json.Encoder()
HEADERS = {
    "Server": "floopy",
    "X-Content-Type-Options": "nosniff",
    "openai-version": "2020-10-01",  # the one value OpenAI has ever sent
}
"""Every answer has these."""


def encode(value: msgspec.Struct) -> bytes:
    return _encoder.encode(value)


def json_response(value: msgspec.Struct) -> web.Response:
    return rendered(encode(value))


def rendered(body: bytes) -> web.Response:
    """An answer of JSON that is bytes already."""
    return web.Response(body=body, content_type="application/json")


def error_response(
    status: int,
    kind: str,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    envelope = ErrorEnvelope(ErrorObject(message=message, type=kind, param=param, code=code))
    return web.Response(
        body=_encoder.encode(envelope), status=status, content_type="application/json", headers=headers
    )


def refusal_response(refusal: Refusal, status: int, kind: str, headers: Mapping[str, str]) -> web.Response:
    return error_response(
        status, kind, refusal.message, param=refusal.param, code=refusal.code, headers=headers
    )


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Runs when the head of any answer is about to be written."""
    if request.app[TRAFFIC].is_ending:
        response.force_close()
    headers = response.headers
    headers.update(HEADERS)
    passage = request.get(PASSAGE)
    if passage is not None:
        headers["x-request-id"] = passage.request_id
        headers["openai-processing-ms"] = str(int((time.monotonic() - passage.began) * 1000))
    caller = request.get(CALLER)
    if caller is not None:
        headers["openai-organization"] = caller.org_id
