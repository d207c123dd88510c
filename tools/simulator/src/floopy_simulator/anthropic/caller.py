"""Who calls: the key, the API version and the betas in the headers of a request."""

import msgspec
from aiohttp import web

from floopy_simulator.anthropic.errors import ApiError, invalid
from floopy_simulator.anthropic.model_rules import LONG_OUTPUT_BETA, VERSIONS
from floopy_simulator.anthropic.request_rules import OLD_FORMAT_BETA

BETAS = frozenset(
    {
        LONG_OUTPUT_BETA,
        OLD_FORMAT_BETA,
        "message-batches-2024-09-24",
        "prompt-caching-2024-07-31",
        "extended-cache-ttl-2025-04-11",
        "interleaved-thinking-2025-05-14",
        "pdfs-2024-09-25",
        "token-efficient-tools-2025-02-19",
    }
)


class Caller(msgspec.Struct, frozen=True):
    """The key is the workspace: everything is scoped to it."""

    key: str
    version: str
    betas: tuple[str, ...]


def read_key(request: web.Request) -> str | None:
    key = request.headers.get("x-api-key", "").strip()
    if key:
        return key
    kind, _, bearer = request.headers.get("Authorization", "").partition(" ")
    return bearer.strip() if kind.lower() == "bearer" and bearer.strip() else None


def identify(request: web.Request, revoked: tuple[str, ...]) -> Caller:
    """Raises ApiError."""
    key = read_key(request)
    if key is None:
        raise ApiError(401, "x-api-key header is required")
    if not key.startswith("sk-") or key in revoked:
        raise ApiError(401, "invalid x-api-key")
    return Caller(key, _read_version(request), _read_betas(request))


def _read_version(request: web.Request) -> str:
    version = ", ".join(request.headers.getall("anthropic-version", []))
    if not version:
        raise invalid("anthropic-version: header is required")
    if version not in VERSIONS:
        raise invalid(f'anthropic-version: "{version}" is not a valid version')
    return version


def _read_betas(request: web.Request) -> tuple[str, ...]:
    words = ",".join(request.headers.getall("anthropic-beta", [])).split(",")
    betas = tuple(word.strip() for word in words if word.strip())
    unknown = [beta for beta in betas if beta not in BETAS]
    if unknown:
        raise invalid(f"Unexpected value(s) `{', '.join(unknown)}` for the `anthropic-beta` header.")
    return betas
