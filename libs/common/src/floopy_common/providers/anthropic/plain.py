"""The short way of a line that is as usual: text and a limit. The long way gives the same bytes."""

from typing import Literal

import msgspec
from msgspec import Raw

from floopy_common.providers.anthropic import reading
from floopy_common.providers.anthropic.policy import Context, Frame, Judge
from floopy_common.providers.anthropic.sampling import Thought, max_tokens, sampling
from floopy_common.providers.anthropic.wire import Params, TextBlock, Turn

_MAX_FRAMES = 1_000
"""Users choose limits and temperatures; a context remembers so many of them and then starts anew."""


class _Message(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: Literal["system", "developer", "user", "assistant"]
    content: str


class _Request(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Nearly all lines of nearly all batches."""

    model: str
    messages: list[_Message]
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: Raw = Raw()
    metadata: Raw = Raw()


_decode = msgspec.json.Decoder(_Request).decode
_encode = msgspec.json.Encoder().encode
_UNTHOUGHT = Thought()


def _around(value: object, gap: bytes) -> tuple[bytes, bytes]:
    """The JSON of a value before and behind the gap in it."""
    before, _, behind = _encode(value).partition(gap)
    return before, behind


_BLOCK = _around(TextBlock(text=""), b'""')
_USER = _around(Turn("user", [TextBlock(text="")]), b'""')
_ASSISTANT = _around(Turn("assistant", [TextBlock(text="")]), b'""')


def translate_plain(body: bytes | Raw, context: Context) -> tuple[bytes, tuple[str, ...]] | None:
    """Params and notes; None for a line that is not as usual. Raises LineRefused."""
    try:
        asked = _decode(body)
    except reading.UNREADABLE:
        return None
    if context.policy.auto_cache:
        return None
    prompt = _prompt(asked.messages)
    if prompt is None:
        return None
    frame = _frame(asked, context)
    return b"".join((frame.head, *prompt, frame.tail)), frame.notes


def _prompt(messages: list[_Message]) -> list[bytes] | None:
    """System messages first, then user and assistant in turn, as JSON in pieces; None for anything else."""
    pieces: list[bytes] = []
    turns = 0
    for message in messages:
        text, role = message.content, message.role
        if not text or text.isspace():
            return None
        if role == ("assistant" if turns % 2 else "user"):
            before, behind = _ASSISTANT if turns % 2 else _USER
            lead = b"," if turns else b'],"messages":[' if pieces else b'"messages":['
            turns += 1
        elif turns or role in {"user", "assistant"}:
            return None
        else:
            before, behind = _BLOCK
            lead = b"," if pieces else b'"system":['
        pieces += (lead, before, _encode(text), behind)
    return pieces if turns % 2 else None


def _frame(asked: _Request, context: Context) -> Frame:
    """What is around the prompt: the same for all lines that ask for the same."""
    temperature, top_p = asked.temperature, asked.top_p
    key = (
        asked.model,
        asked.max_completion_tokens,
        asked.max_tokens,
        # by its spelling: 0.0 and -0.0 are equal, but not the same bytes
        None if temperature is None else repr(temperature),
        None if top_p is None else repr(top_p),
    )
    frame = context.frames.get(key)
    if frame is None:
        frame = _make_frame(asked, context)
        if len(context.frames) >= _MAX_FRAMES:
            context.frames.clear()
        context.frames[key] = frame
    return frame


def _make_frame(asked: _Request, context: Context) -> Frame:
    judge = Judge(context.policy)
    model = context.model(asked.model)
    sampled = sampling(
        asked.temperature,
        asked.top_p,
        free=context.policy.sampling(model.capabilities),
        thought=_UNTHOUGHT,
        judge=judge,
    )
    params = Params(
        model=model.id,
        max_tokens=max_tokens(asked.max_completion_tokens, asked.max_tokens, model.capabilities),
        messages=[],
        temperature=sampled.temperature,
        top_p=sampled.top_p,
    )
    # no string can hold these bytes: its quotation marks are escaped
    head, tail = _around(params, b'"messages":[')
    return Frame(head, tail, tuple(judge.notes))
