"""Responses with the headers Anthropic sends."""

import secrets
from datetime import UTC, datetime

import msgspec
from aiohttp import web

from floopy_simulator.anthropic.errors import ApiError

REQUESTS_PER_MINUTE = 4_000
"""Only shown: a limit that is hit is a fault to be scripted."""


def new_request_id() -> str:
    return f"req_01{secrets.token_hex(12)}"


def json_response(body: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


def raw_response(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")


def error_response(error: ApiError, request_id: str) -> web.Response:
    if error.page is not None:
        return web.Response(body=error.page, status=error.status, content_type="text/html")
    headers = {"Content-Type": "application/json", **error.headers}
    return web.Response(body=error.body(request_id), status=error.status, headers=headers)


def add_headers(response: web.StreamResponse, request_id: str, now: float) -> None:
    if response.prepared:
        return
    reset = datetime.fromtimestamp(now + 1, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    for name, value in (
        ("request-id", request_id),
        ("anthropic-organization-id", "00000000-0000-4000-8000-000000000000"),
        ("anthropic-ratelimit-requests-limit", str(REQUESTS_PER_MINUTE)),
        ("anthropic-ratelimit-requests-remaining", str(REQUESTS_PER_MINUTE - 1)),
        ("anthropic-ratelimit-requests-reset", reset),
    ):
        response.headers.setdefault(name, value)
