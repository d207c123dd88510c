"""Anthropic's `GET /v1/models` as it comes over the wire, and of each model what a capability table reads."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from floopy_common.providers.anthropic.capabilities import EFFORTS, THINKING_TYPES

Document = dict[str, Any]

_FLAGS = ("batch", "structured_outputs", "image_input", "pdf_input")
_MAX_ID = 256
"""A longer id is nobody's model."""
_MAX_TOKENS = 10**9
"""What is stored must be small, whoever is behind the base URL."""


class _ModelInfo(msgspec.Struct):
    id: str
    lifecycle: str | None = None
    max_tokens: int | None = None
    max_input_tokens: int | None = None
    capabilities: dict[str, Any] | None = None


class _Page(msgspec.Struct):
    data: list[_ModelInfo]
    has_more: bool = False


_decode = msgspec.json.Decoder(_Page).decode


def read_models(body: bytes) -> tuple[list[Document], bool]:
    """The models of a page, and whether there are more. MsgspecError or ValueError for what is none."""
    page = _decode(body)
    return [_document(model) for model in page.data if len(model.id) <= _MAX_ID], page.has_more


def _document(model: _ModelInfo) -> Document:
    said: Mapping[str, Any] = model.capabilities or {}
    capabilities = _supports(said, _FLAGS)
    if isinstance(thinking := said.get("thinking"), dict):
        types = thinking.get("types")
        named = {"types": _supports(types, THINKING_TYPES)} if isinstance(types, dict) else {}
        capabilities["thinking"] = {**_support(thinking), **named}
    if isinstance(effort := said.get("effort"), dict):
        capabilities["effort"] = {**_support(effort), **_supports(effort, EFFORTS)}
    return {
        "id": model.id,
        "retired": model.lifecycle == "retired",
        "max_tokens": _bounded(model.max_tokens),
        "max_input_tokens": _bounded(model.max_input_tokens),
        "capabilities": capabilities,
    }


def _supports(said: Mapping[str, Any], names: Iterable[str]) -> Document:
    return {name: _support(said[name]) for name in names if isinstance(said.get(name), dict)}


def _support(member: Mapping[str, Any]) -> Document:
    value = member.get("supported")
    return {"supported": value} if isinstance(value, bool) else {}


def _bounded(tokens: int | None) -> int | None:
    return tokens if tokens is not None and 0 < tokens <= _MAX_TOKENS else None
