"""The first words of a question and of its answer, whatever the endpoint's body looks like."""

from collections.abc import Sequence

import msgspec

PREVIEW_CHARS = 200
_PREFIX_BYTES = 6 * PREVIEW_CHARS
"""As many characters even if each is written as an escape; the rest of a long text is not read."""
_LONGEST_TAIL = 12
"""Characters of an escaped surrogate pair: what a cut can leave broken."""
_NONE = msgspec.Raw(b"")
"""Stands for a missing value: a union of Raw and null is nothing msgspec can read."""


class _Part(msgspec.Struct, gc=False):
    """A message, an item of an `input` or `output` list, or a part of one's content."""

    role: str | None = None
    content: msgspec.Raw = _NONE
    text: msgspec.Raw = _NONE


class _Question(msgspec.Struct, gc=False):
    messages: list[_Part] | None = None
    input: msgspec.Raw = _NONE
    prompt: msgspec.Raw = _NONE


class _Choice(msgspec.Struct, gc=False):
    message: _Part | None = None
    text: msgspec.Raw = _NONE


class _Failure(msgspec.Struct, gc=False):
    message: str | None = None


class _Answer(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    output: list[_Part] | None = None
    error: _Failure | None = None


_decode_question = msgspec.json.Decoder(_Question).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_parts = msgspec.json.Decoder(list[_Part]).decode
_decode_texts = msgspec.json.Decoder(list[str]).decode
_decode_text = msgspec.json.Decoder(str).decode

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def question_preview(body: bytes | msgspec.Raw) -> str | None:
    """The beginning of the last user message, or of whatever the endpoint calls its input."""
    try:
        question = _decode_question(body)
        if question.messages:
            return _last_of_user(question.messages)
        return _text_of(question.input) or _text_of(question.prompt)
    except _UNREADABLE:
        return None


def answer_preview(body: bytes) -> str | None:
    """The beginning of the first choice's text, or of the error's message."""
    try:
        answer = _decode_answer(body)
        if answer.choices:
            first = answer.choices[0]
            return _text_of(first.text if first.message is None else first.message.content)
        if answer.output:
            return _first_text(answer.output)
    except _UNREADABLE:
        return None
    return None if answer.error is None or answer.error.message is None else shortened(answer.error.message)


def shortened(text: str) -> str:
    return text[:PREVIEW_CHARS]


def _last_of_user(messages: Sequence[_Part]) -> str | None:
    for message in reversed(messages):
        if message.role == "user":
            return _text_of(message.content)
    return _text_of(messages[-1].content)


def _text_of(content: msgspec.Raw) -> str | None:
    """Of a text, a list of texts, a list of messages or a list of parts."""
    view = memoryview(content)
    kind = bytes(view[:1])
    if kind == b'"':
        return _beginning(view)
    if kind != b"[":
        return None
    try:
        parts = _decode_parts(content)
    except msgspec.ValidationError:
        texts = _decode_texts(content)
        return shortened(texts[0]) if texts else None
    if any(part.role is not None for part in parts):
        return _last_of_user(parts)
    return _first_text(parts)


def _first_text(parts: Sequence[_Part]) -> str | None:
    texts = (_text_of(part.text) or _text_of(part.content) for part in parts)
    return next((text for text in texts if text), None)


def _beginning(string: memoryview) -> str | None:
    """Of a JSON string, without decoding all of a long one."""
    if len(string) <= _PREFIX_BYTES:
        return shortened(_decode_text(string))
    prefix = bytes(string[:_PREFIX_BYTES]).decode("utf-8", "ignore")
    for cut in range(_LONGEST_TAIL):
        try:
            return shortened(_decode_text(prefix[: len(prefix) - cut] + '"'))
        except msgspec.DecodeError:
            continue
    return None
