"""What the way back must know of a request; it follows from the line alone, so results can be read again."""

from typing import Any

import msgspec
from msgspec import Raw

from floopy_common.providers.anthropic import reading
from floopy_common.providers.anthropic.refusal import LineRefused
from floopy_common.providers.anthropic.sampling import stop_sequences


class ResultContext(msgspec.Struct, frozen=True, gc=False):
    """`model` is the caller's name for the model where that is not Anthropic's own.

    `cuts` are the stop sequences that could not be sent; `functions`: calls have the deprecated shape.
    """

    model: str | None = None
    functions: bool = False
    json_object: bool = False
    cuts: tuple[str, ...] = ()


PLAIN = ResultContext()
"""A request that asked for nothing special."""


class _Asked(msgspec.Struct, gc=False):
    model: str = ""
    functions: Raw = Raw()
    response_format: Raw = Raw()
    stop: Raw = Raw()


_decode = msgspec.json.Decoder(_Asked).decode


def result_context(body: bytes | Raw) -> ResultContext:
    """`PLAIN` for a body that was never sent anyway."""
    try:
        asked = _decode(body)
    except reading.UNREADABLE:
        return PLAIN
    is_claude = asked.model.startswith("claude-")
    if is_claude and not asked.functions and not asked.response_format and not asked.stop:
        return PLAIN
    wanted = _value(asked.response_format)
    return ResultContext(
        model=None if is_claude else asked.model or None,
        functions=bool(_value(asked.functions)),
        json_object=isinstance(wanted, dict) and wanted.get("type") == "json_object",
        cuts=_cuts(_value(asked.stop)),
    )


def _value(raw: Raw) -> Any:
    try:
        return reading.load_exact(bytes(raw)) if raw else None
    except reading.UNREADABLE:
        return None


def _cuts(stop: Any) -> tuple[str, ...]:
    stops = stop if isinstance(stop, list) else [stop]
    if not all(isinstance(text, str) for text in stops):
        return ()
    try:
        return tuple(stop_sequences(stops)[1])
    except LineRefused:
        return ()
