"""JSON responses with the headers OpenAI sends."""

import secrets

import msgspec
from aiohttp import web

from floopy_simulator.openai.errors import ApiError


def json_response(body: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


def raw_response(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")


def error_response(error: ApiError) -> web.Response:
    headers = {"Content-Type": "application/json", **error.headers}
    return web.Response(body=error.body, status=error.status, headers=headers)


def add_headers(response: web.StreamResponse) -> None:
    if not response.prepared:
        response.headers.setdefault("x-request-id", f"req_{secrets.token_hex(16)}")
        response.headers.setdefault("openai-version", "2020-10-01")
        response.headers.setdefault("openai-organization", "org-simulator")
