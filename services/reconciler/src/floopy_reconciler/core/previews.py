"""The first words of a question and of its answer, whatever the endpoint's body looks like.

Previews are made as the JSON they become in an event: most texts are cut out of the body as they are.
"""

from collections.abc import Sequence

import msgspec

PREVIEW_CHARS = 200
_PREFIX_BYTES = 6 * PREVIEW_CHARS
"""As many characters even if each is written as an escape; the rest of a long text is not read."""
_LONGEST_TAIL = 12
"""Characters of an escaped surrogate pair: what a cut can leave broken."""
_NONE = msgspec.Raw(b"")
"""Stands for a missing value: a union of Raw and null is nothing msgspec can read."""
_EMPTY = b'""'
_QUOTE, _BACKSLASH = b'"\\'
"""As numbers: a byte is found several times faster than a string of one."""


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


class _Constraints(msgspec.Struct, gc=False):
    tools: msgspec.Raw = _NONE
    functions: msgspec.Raw = _NONE
    response_format: msgspec.Raw = _NONE
    tool_choice: msgspec.Raw = _NONE
    function_call: msgspec.Raw = _NONE


_UNCONSTRAINED = _Constraints()


class _Asked(_Question, gc=False):
    """Both in one: whatever reads as this reads as either."""

    tools: msgspec.Raw = _NONE
    functions: msgspec.Raw = _NONE
    response_format: msgspec.Raw = _NONE
    tool_choice: msgspec.Raw = _NONE
    function_call: msgspec.Raw = _NONE


_decode_asked = msgspec.json.Decoder(_Asked).decode
_decode_constraints = msgspec.json.Decoder(_Constraints).decode
_decode_question = msgspec.json.Decoder(_Question).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_parts = msgspec.json.Decoder(list[_Part]).decode
_decode_texts = msgspec.json.Decoder(list[str]).decode
_decode_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def question_preview(body: bytes | msgspec.Raw) -> bytes | None:
    """JSON of the beginning of the last user message, or of whatever the endpoint calls its input."""
    try:
        return _said_in(_decode_question(body))
    except _UNREADABLE:
        return None


def asked_of(body: bytes) -> tuple[bool, bytes | None]:
    """`is_unconstrained` and `question_preview` of a request, which is read once where that suffices."""
    try:
        return asked_in(body)
    except _UNREADABLE:
        return is_unconstrained(body), question_preview(body)


def asked_in(body: bytes) -> tuple[bool, bytes | None]:
    """The same of a request of the usual shape; raises what msgspec does for any other and for no JSON."""
    asked = _decode_asked(body)
    constraints = asked.tools or asked.functions or asked.response_format
    unconstrained = not (constraints or asked.tool_choice or asked.function_call)
    if asked.messages and (last := asked.messages[-1]).role == "user":
        # what nearly every request is like
        preview = _plain_beginning(bytes(last.content))
        if preview is not None:
            return unconstrained, preview
    return unconstrained, _said_in(asked)


def answer_preview(body: bytes) -> bytes | None:
    """JSON of the beginning of the first choice's text, or of the error's message."""
    try:
        answer = _decode_answer(body)
        if answer.choices:
            first = answer.choices[0]
            return _text_of(first.text if first.message is None else first.message.content)
        if answer.output:
            return _first_text(answer.output)
    except _UNREADABLE:
        return None
    failure = answer.error
    return None if failure is None or failure.message is None else _encode(_shortened(failure.message))


def text_preview(content: bytes) -> bytes | None:
    """JSON of the beginning of what a message's content, itself JSON, says."""
    plain = _plain_beginning(content)
    if plain is not None:
        return plain
    try:
        return _text_of(content)
    except _UNREADABLE:
        return None


def is_unconstrained(body: bytes) -> bool:
    """Whether a request certainly names neither tools nor the form of its answer."""
    try:
        found = _decode_constraints(body)
    except _UNREADABLE:
        return False
    return found == _UNCONSTRAINED


def _shortened(text: str) -> str:
    return text[:PREVIEW_CHARS]


def _said_in(question: _Question) -> bytes | None:
    if question.messages:
        return _last_of_user(question.messages)
    said = _text_of(question.input)
    return _text_of(question.prompt) if said is None or said == _EMPTY else said


def _last_of_user(messages: Sequence[_Part]) -> bytes | None:
    for message in reversed(messages):
        if message.role == "user":
            return _text_of(message.content)
    return _text_of(messages[-1].content)


def _text_of(content: msgspec.Raw | bytes) -> bytes | None:
    """Of a text, a list of texts, a list of messages or a list of parts."""
    raw = bytes(content)
    if raw.startswith(b'"'):
        return _beginning(raw)
    if not raw.startswith(b"["):
        return None
    try:
        parts = _decode_parts(raw)
    except msgspec.ValidationError:
        texts = _decode_texts(raw)
        return _encode(_shortened(texts[0])) if texts else None
    if any(part.role is not None for part in parts):
        return _last_of_user(parts)
    return _first_text(parts)


def _first_text(parts: Sequence[_Part]) -> bytes | None:
    for part in parts:
        for content in (part.text, part.content):
            text = _text_of(content)
            if text is not None and text != _EMPTY:
                return text
    return None


def _plain_beginning(content: bytes) -> bytes | None:
    """Of a JSON string each of whose first bytes is a character that stands for itself; None of another."""
    start = content[: PREVIEW_CHARS + 1]
    if not start or start[0] != _QUOTE or _BACKSLASH in start or not start.isascii():
        return None
    return content if len(content) <= PREVIEW_CHARS + 2 else start + b'"'


def _beginning(string: bytes) -> bytes | None:
    """Of a JSON string, without decoding all of a long one."""
    plain = _plain_beginning(string)
    if plain is not None:
        return plain
    if len(string) <= _PREFIX_BYTES:
        return _encode(_shortened(_decode_text(string)))
    text = string[:_PREFIX_BYTES].decode("utf-8", "ignore")
    for cut in range(_LONGEST_TAIL):
        try:
            return _encode(_shortened(_decode_text(text[: len(text) - cut] + '"')))
        except msgspec.DecodeError:
            continue
    return None
