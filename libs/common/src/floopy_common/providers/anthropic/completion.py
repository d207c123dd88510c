"""A Message told as a chat completion."""

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Literal, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from floopy_common.domain.money import Usage
from floopy_common.providers.anthropic import reading
from floopy_common.providers.anthropic.answer import AnthropicMessage, Block, Counts, counts_of
from floopy_common.providers.anthropic.memory import ResultContext
from floopy_common.providers.mending import mended

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]

FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "model_context_window_exceeded": "length",
}
"""Anything else may have been cut short, so it is told as `length`, and noted."""

UNKNOWN_STOP = "unknown_stop_reason"
UNKNOWN_BLOCK = "unknown_block"
THINKING_UNKNOWN = "thinking_tokens_unknown"
NO_USAGE = "usage_missing"

_THINKING = frozenset({"thinking", "redacted_thinking"})
_FENCE = re.compile(r"```[A-Za-z]*")
_EMPTY = b"{}"


class _Called(msgspec.Struct, gc=False):
    name: str
    arguments: str


class _ToolCall(msgspec.Struct, gc=False):
    id: str
    type: Literal["function"]
    function: _Called


class _Answer(msgspec.Struct, gc=False):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    annotations: tuple[()] = ()
    tool_calls: list[_ToolCall] | UnsetType = UNSET
    function_call: _Called | UnsetType = UNSET


class _Choice(msgspec.Struct, gc=False):
    index: int
    message: _Answer
    logprobs: None
    finish_reason: FinishReason


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: int
    cache_write_tokens: int
    audio_tokens: int = 0


class _CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class _Tokens(msgspec.Struct, gc=False):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: _PromptDetails
    completion_tokens_details: _CompletionDetails


class Completion(msgspec.Struct, gc=False):
    """The body of the response."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[_Choice]
    usage: _Tokens | None
    service_tier: Literal["default"] = "default"
    system_fingerprint: None = None


class Told(NamedTuple):
    """`notes` name what an operator should know of: endings and blocks that nobody has heard of."""

    completion: Completion
    usage: Usage | None
    notes: tuple[str, ...]


class _Content(NamedTuple):
    """`cut`: an emulated stop sequence ended the text."""

    text: str | None
    calls: list[Block]
    cut: bool
    notes: list[str]


def complete(message: AnthropicMessage, context: ResultContext, created: int, key: str) -> Told:
    """`key` names the answer where it has no id of its own."""
    blocks = message.content or []
    content = _content(blocks, context.cuts, message.stop_reason)
    finish, notes = _finish(message, content, context), content.notes
    if message.stop_reason not in FINISH:
        notes.append(UNKNOWN_STOP)
    refusal = None
    if message.stop_reason == "refusal" and message.stop_details is not None:
        refusal = message.stop_details.explanation
    answer = _Answer("assistant", content.text, refusal)
    if context.json_object and content.text is not None:
        answer.content = without_fence(content.text)
    if content.calls and context.functions:
        answer.function_call = _called(content.calls[0])
    elif content.calls:
        answer.tool_calls = [
            _ToolCall(call.id or f"call_{number}", "function", _called(call))
            for number, call in enumerate(content.calls)
        ]
    usage = _usage(message.usage, blocks, notes)
    completion = Completion(
        f"chatcmpl-{(message.id or _made_id(key)).removeprefix('msg_')}",
        "chat.completion",
        created,
        context.model or message.model or "",
        [_Choice(0, answer, None, finish)],
        None if usage is None else _tokens(usage),
    )
    return Told(completion, usage, tuple(dict.fromkeys(notes)))


def _content(blocks: Sequence[Block], cuts: Sequence[str], stop_reason: str | None) -> _Content:
    if len(blocks) == 1 and blocks[0].type == "text" and not cuts:
        return _Content(blocks[0].text, [], False, [])
    content = _Content(None, [], False, [])
    text = ""
    for block in blocks:
        if block.type == "text":
            text += block.text or ""
            content = content._replace(text=text)
            at = _first_cut(text, cuts)
            if at is not None:
                return content._replace(text=text[:at], cut=True)
        elif block.type == "tool_use":
            content.calls.append(block)
        elif block.type not in _THINKING:
            content.notes.append(UNKNOWN_BLOCK)
    cut_short = stop_reason == "max_tokens" and content.calls and blocks[-1].type == "tool_use"
    if cut_short and _arguments(content.calls[-1]) == "{}":
        content.calls.pop()
    return content


def _first_cut(text: str, cuts: Sequence[str]) -> int | None:
    found = [at for at in (text.find(cut) for cut in cuts) if at >= 0]
    return min(found) if found else None


def _finish(message: AnthropicMessage, content: _Content, context: ResultContext) -> FinishReason:
    finish = FINISH.get(message.stop_reason or "", "length")
    if content.cut and finish != "content_filter":
        return "stop"
    return "function_call" if finish == "tool_calls" and context.functions else finish


def _called(call: Block) -> _Called:
    return _Called(call.name or "", _arguments(call))


def _arguments(call: Block) -> str:
    """Compact JSON, numbers as the model wrote them."""
    return reading.compact(mended(bytes(call.input) or _EMPTY)).decode()


def without_fence(text: str) -> str:
    """What a single code fence around the whole text holds, if that is JSON; else the text as it is."""
    stripped = text.strip()
    opening = _FENCE.match(stripped)
    if opening is None or not stripped.endswith("```") or len(stripped) < opening.end() + 3:
        return text
    inner = stripped[opening.end() : -3].strip()
    try:
        reading.load_exact(inner)
    except reading.UNREADABLE:
        return text
    return inner


def _made_id(key: str) -> str:
    return blake2b(key.encode(), digest_size=16).hexdigest()


def _usage(counts: Counts | None, blocks: Sequence[Block], notes: list[str]) -> Usage | None:
    if counts is not None and not counts.input_tokens and not counts.output_tokens:
        counts = _summed(counts)
    if counts is None or counts.input_tokens is None or counts.output_tokens is None:
        notes.append(NO_USAGE)
        return None
    cached = counts.cache_read_input_tokens or 0
    written = counts.cache_creation_input_tokens or 0
    details = counts.output_tokens_details
    thinking = details.thinking_tokens if details is not None else None
    if thinking is None and any(block.type in _THINKING for block in blocks):
        notes.append(THINKING_UNKNOWN)
    return Usage(
        input_tokens=counts.input_tokens + cached + written,
        output_tokens=counts.output_tokens,
        cached_tokens=cached,
        reasoning_tokens=thinking or 0,
        cache_write_tokens=written,
    )


def _summed(counts: Counts) -> Counts:
    """The sum over the iterations of a message that does not say what it cost as a whole."""
    parts = counts_of(counts.iterations)
    if not parts:
        return counts
    return Counts(
        input_tokens=sum(part.input_tokens or 0 for part in parts),
        output_tokens=sum(part.output_tokens or 0 for part in parts),
        cache_creation_input_tokens=sum(part.cache_creation_input_tokens or 0 for part in parts),
        cache_read_input_tokens=sum(part.cache_read_input_tokens or 0 for part in parts),
        output_tokens_details=counts.output_tokens_details,
    )


def _tokens(usage: Usage) -> _Tokens:
    return _Tokens(
        usage.input_tokens,
        usage.output_tokens,
        usage.total_tokens,
        _PromptDetails(usage.cached_tokens, usage.cache_write_tokens),
        _CompletionDetails(usage.reasoning_tokens),
    )
