"""Prompts that lines have in common: how they are recognised, and where the cache breakpoint goes.

A breakpoint on the whole request would be written by every line and read by none, since lines differ at their
end. So it stands behind what they share: the last block of the system prompt, else the last tool.
"""

from hashlib import blake2b

import msgspec
from msgspec import Raw

from floopy_common.providers.anthropic import reading
from floopy_common.providers.anthropic.wire import CACHED, Params

MIN_PREFIX = 4_096
"""Bytes from which a prefix may be worth it: no model caches fewer than 1,024 tokens."""


class _Prefix(msgspec.Struct, gc=False):
    model: Raw = Raw()
    tools: Raw = Raw()
    functions: Raw = Raw()
    messages: list[Raw] = []


class _Role(msgspec.Struct, gc=False):
    role: str


_decode = msgspec.json.Decoder(_Prefix).decode
_decode_role = msgspec.json.Decoder(_Role).decode


def prefix_key(body: bytes | Raw) -> bytes | None:
    """Names what comes before the conversation; None when that is short."""
    try:
        asked = _decode(body)
        parts = [bytes(asked.model), bytes(asked.tools), bytes(asked.functions)]
        for message in asked.messages:
            if _decode_role(message).role not in {"system", "developer"}:
                break
            parts.append(bytes(message))
    except reading.UNREADABLE:
        return None
    if sum(len(part) for part in parts) < MIN_PREFIX:
        return None
    return blake2b(b"\0".join(parts), digest_size=16).digest()


def mark_prefix(params: Params) -> None:
    """Cache what comes before the conversation."""
    if params.system:
        params.system[-1].cache_control = CACHED
    elif params.tools:
        params.tools[-1].cache_control = CACHED
