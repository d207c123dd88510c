"""What is read of a line of Anthropic's results."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar, get_type_hints

import msgspec
from msgspec import Meta, Raw

from floopy_common.providers.anthropic import reading

MAX_TOKENS = 1_000_000_000
"""No model reads or writes so much for one request: a larger figure is no usage."""

Tokens = Annotated[int, Meta(ge=0, le=MAX_TOKENS)]


class Block(msgspec.Struct, gc=False):
    """Any block of content; what other kinds of blocks hold has no home in OpenAI's shape."""

    type: str = ""
    text: str | None = None
    id: str | None = None
    name: str | None = None
    input: Raw = Raw()


class OutputDetails(msgspec.Struct, gc=False):
    thinking_tokens: Tokens | None = None


class Counts(msgspec.Struct, gc=False):
    """`input_tokens` leaves out what was read from the cache or written to it."""

    input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    cache_creation_input_tokens: Tokens | None = None
    cache_read_input_tokens: Tokens | None = None
    output_tokens_details: OutputDetails | None = None
    iterations: Raw = Raw()


class StopDetails(msgspec.Struct, gc=False):
    explanation: str | None = None


class AnthropicMessage(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    content: list[Block] | None = None
    stop_reason: str | None = None
    stop_details: StopDetails | None = None
    usage: Counts | None = None


class Fault(msgspec.Struct, gc=False):
    type: str | None = None
    message: str | None = None
    details: Raw = Raw()


class Failure(msgspec.Struct, gc=False):
    error: Fault | None = None
    request_id: str | None = None


class Result(msgspec.Struct, gc=False):
    type: str
    message: AnthropicMessage | None = None
    error: Failure | None = None


class ResultLine(msgspec.Struct, gc=False):
    custom_id: str
    result: Result


class _RawResult(msgspec.Struct, gc=False):
    type: str
    message: Raw = Raw()
    error: Raw = Raw()


class _RawLine(msgspec.Struct, gc=False):
    custom_id: str
    result: _RawResult


_T = TypeVar("_T", bound=msgspec.Struct)

_decode = msgspec.json.Decoder(ResultLine).decode
_decode_raw = msgspec.json.Decoder(_RawLine).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode


def read_line(raw: bytes) -> ResultLine:
    """A member of another shape than ours hides none of the others.

    Raises msgspec.MsgspecError, UnicodeDecodeError or RecursionError when it is no result line at all.
    """
    try:
        return _decode(raw)
    except msgspec.ValidationError:
        pass
    line = _decode_raw(raw)
    message = _lenient(line.result.message, AnthropicMessage, content=_blocks, usage=_counts)
    error = _lenient(line.result.error, Failure, error=lambda raw: _lenient(raw, Fault))
    return ResultLine(line.custom_id, Result(line.result.type, message, error))


def counts_of(raw: Raw) -> list[Counts]:
    """Usage by iteration, where a message was made in several; empty when there is none."""
    try:
        return [counts for counts in map(_counts, _decode_list(raw)) if counts is not None] if raw else []
    except reading.UNREADABLE:
        return []


def _lenient(raw: Raw, kind: type[_T], **readers: Callable[[Raw], Any]) -> _T | None:
    try:
        members = _decode_members(raw)
    except reading.UNREADABLE:
        return None
    hints = get_type_hints(kind, include_extras=True)
    found = {
        name: readers[name](members[name]) if name in readers else _value(members[name], hint)
        for name, hint in hints.items()
        if name in members
    }
    return kind(**{name: value for name, value in found.items() if value is not None})


def _value(raw: Raw, kind: Any) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind)
    except reading.UNREADABLE:
        return None


def _blocks(raw: Raw) -> list[Block]:
    try:
        return [block for block in (_lenient(item, Block) for item in _decode_list(raw)) if block is not None]
    except reading.UNREADABLE:
        return []


def _counts(raw: Raw) -> Counts | None:
    return _lenient(raw, Counts)
