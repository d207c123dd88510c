"""From a line of OpenAI's results to a line's answer; bodies stay the bytes the provider wrote."""

import re
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from floopy_common.domain.errors import Invalid
from floopy_common.domain.line import LineAnswer
from floopy_common.domain.money import Usage
from floopy_common.providers.mending import mended, valid

MAX_TOKENS = 1_000_000_000
"""No model reads or writes so much for one request: a larger figure is no usage."""

_STATUS_CODES = range(100, 600)
"""Batches have been seen to end with lines of status 0, which is no answer."""
_NULL = b"null"
_NONE = Raw(b"")
_UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)

_TEXT = rb"[ !#-\[\]-~]*"
_PLAIN_HEAD = re.compile(
    rb'\{"id": ?"%b", ?"custom_id": ?"%b", ?"response": ?'
    rb'\{"status_code": ?(2\d\d), ?"request_id": ?"(%b)", ?"body": ?(?=\{)' % (_TEXT, _TEXT, _TEXT)
)
_PLAIN_TAILS = (b'}},"error":null}', b'}}, "error": null}')
"""What surrounds the body of nearly every result: whatever JSON lies between is the body, all of it."""

Tokens = Annotated[int, Meta(ge=-MAX_TOKENS, le=MAX_TOKENS)]
"""Negative counts are kept: whoever prices them says what is wrong with them."""


class _Key(msgspec.Struct, gc=False):
    custom_id: str


class _Response(msgspec.Struct, gc=False):
    status_code: int | None = None
    request_id: str | int | None = None
    body: Raw = Raw(_NULL)


class _Result(msgspec.Struct, gc=False):
    response: _Response | None = None
    error: Raw = Raw(_NULL)


class _Object(msgspec.Struct, gc=False):
    """Any: its members are skipped."""


class _Success(msgspec.Struct, gc=False):
    status_code: Annotated[int, Meta(ge=200, le=299)]
    body: _Object
    request_id: str | int | None = None


class _Succeeded(msgspec.Struct, gc=False):
    """A line that nobody has to read twice; every other success has something odd about it."""

    custom_id: str
    response: _Success
    error: None = None


class _InputDetails(msgspec.Struct, gc=False):
    cached_tokens: Tokens | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: Tokens | None = None


class _Usage(msgspec.Struct, gc=False):
    """Both families of names: `prompt` and `completion`, and those of the Responses API."""

    prompt_tokens: Tokens | None = None
    completion_tokens: Tokens | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Choice(msgspec.Struct, gc=False):
    finish_reason: str | None = None


class _Part(msgspec.Struct, gc=False):
    role: str | None = None
    content: Raw = _NONE
    text: Raw = _NONE


class _SaidChoice(_Choice, gc=False):
    message: _Part | None = None
    text: Raw = _NONE


class _Incomplete(msgspec.Struct, gc=False):
    reason: str | None = None


class _Body(msgspec.Struct, gc=False):
    """What is read of an answer, whichever endpoint it came from."""

    model: str | None = None
    usage: _Usage | None = None
    choices: Sequence[_Choice] | None = None
    status: str | None = None
    incomplete_details: _Incomplete | None = None


class _Error(msgspec.Struct, gc=False):
    message: str | None = None


class _SaidBody(_Body, gc=False):
    """The same of an ordinary answer, with its text; more of the shape has to be as expected."""

    choices: Sequence[_SaidChoice] | None = None
    output: list[_Part] | None = None
    error: _Error | None = None


_decode_key = msgspec.json.Decoder(_Key).decode
_decode_succeeded = msgspec.json.Decoder(_Succeeded).decode
_decode_result = msgspec.json.Decoder(_Result).decode
_decode_body = msgspec.json.Decoder(_Body).decode
_decode_said = msgspec.json.Decoder(_SaidBody).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


class OpenAiResults:
    """How OpenAI, and servers that speak its API, write a line of a batch's results."""

    def read_success(self, raw: bytes) -> str | None:
        """The custom_id of a line that is plainly a success; None of one that has to be read in full."""
        try:
            return _decode_succeeded(raw).custom_id
        except _UNREADABLE:
            return None

    def read_key(self, raw: bytes) -> str | None:
        """The line's custom_id; None when the line cannot be read."""
        try:
            return _decode_key(raw).custom_id
        except _UNREADABLE:
            pass
        try:
            return _decode_key(mended(raw)).custom_id
        except _UNREADABLE:
            return None

    def parse_result(self, raw: bytes) -> LineAnswer:
        """Without what only a whole answer says: model, usage and how it ended.

        Raises Invalid when the line cannot be read.
        """
        try:
            return LineAnswer(*_verdict(_read(raw)))
        except _UNREADABLE as error:
            raise Invalid(f"a result that cannot be read: {error}") from error

    def parse_answer(self, raw: bytes, asked: bytes, ended: int) -> tuple[LineAnswer, tuple[str, ...]]:
        """The body is the provider's own, whatever was asked. Raises Invalid when it cannot be read."""
        try:
            return _plain_answer(raw) or _answer(_read(raw)), ()
        except _UNREADABLE as error:
            raise Invalid(f"a result that cannot be read: {error}") from error


def _body_end(raw: bytes) -> int | None:
    """Seen from the end of a line with a plain tail; None of another."""
    for tail in _PLAIN_TAILS:
        if raw.endswith(tail):
            return 1 - len(tail)
    return None


def _plain_answer(raw: bytes) -> LineAnswer | None:
    """The answer in a line that is plainly a success, of which only the body is decoded; None of another."""
    head, end = _PLAIN_HEAD.match(raw), _body_end(raw)
    if head is None or end is None or not (raw.isascii() or valid(raw) is raw):
        return None
    body = raw[head.end() : end]
    try:
        said = _decode_said(body)
    except _UNREADABLE:
        return None
    status, request_id = head.groups()
    usage, reason, text = _usage(said.usage), _finish_reason(said), _text_of(said)
    return LineAnswer(int(status), request_id.decode(), body, None, said.model, usage, reason, text)


def _read(raw: bytes) -> _Result:
    if not raw.isascii():
        raw = valid(raw)  # Raw does not look at what it skips
    try:
        return _decode_result(raw)
    except msgspec.DecodeError:
        return _decode_result(mended(raw))


def _verdict(result: _Result) -> tuple[int | None, str | None, bytes | None, bytes | None]:
    """What became of the line: status, request id, body and error."""
    response, error = result.response, _present(result.error)
    if response is None or response.status_code not in _STATUS_CODES:
        return None, None, None, error
    request_id = response.request_id
    if request_id is not None:
        request_id = str(request_id)
    return response.status_code, request_id, _present(response.body), error


def _answer(result: _Result) -> LineAnswer:
    status, request_id, body, error = _verdict(result)
    if status is None or body is None or not 200 <= status < 300:
        return LineAnswer(status, request_id, body, error)
    said, text = _read_body(body)
    return LineAnswer(
        status,
        request_id,
        body,
        error,
        said.model,
        _usage(said.usage),
        _finish_reason(said),
        text,
    )


def _present(raw: Raw) -> bytes | None:
    value = bytes(raw)
    return None if value == _NULL else value


def _read_body(body: bytes) -> tuple[_Body, bytes | None]:
    """What can be read of an answer, and JSON of its text if that is at hand.

    A member of another shape than ours hides none of the others.
    """
    try:
        said = _decode_said(body)
    except msgspec.ValidationError:
        return _read_odd_body(body), None
    return said, _text_of(said)


def _text_of(said: _SaidBody) -> bytes | None:
    if not said.choices:
        return None
    first = said.choices[0]
    text = bytes(first.text if first.message is None else first.message.content)
    return text if text[:1] == b'"' else None


def _read_odd_body(body: bytes) -> _Body:
    try:
        return _decode_body(body)
    except msgspec.ValidationError:
        pass
    try:
        members = _decode_members(body)
    except msgspec.ValidationError:  # an answer that is no object
        return _Body()
    return _Body(**{name: _member(members, name, kind) for name, kind in _Body.__annotations__.items()})


def _member(members: dict[str, Raw], name: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(members.get(name, _NULL), type=kind)
    except msgspec.ValidationError:
        return None


def _usage(said: _Usage | None) -> Usage | None:
    """None unless the answer says what went in; an embedding has nothing that comes out."""
    if said is None:
        return None
    if said.input_tokens is not None:
        details, more = said.input_tokens_details, said.output_tokens_details
        return _counted(said.input_tokens, said.output_tokens, details, more)
    if said.prompt_tokens is not None:
        details, more = said.prompt_tokens_details, said.completion_tokens_details
        return _counted(said.prompt_tokens, said.completion_tokens, details, more)
    return None


def _counted(
    tokens_in: int, tokens_out: int | None, details: _InputDetails | None, more: _OutputDetails | None
) -> Usage:
    cached = details.cached_tokens if details else None
    reasoning = more.reasoning_tokens if more else None
    return Usage(tokens_in, tokens_out or 0, cached or 0, reasoning or 0)


def _finish_reason(said: _Body) -> str | None:
    """In the words of chat completions, those of the Responses API translated."""
    if said.choices:
        return said.choices[0].finish_reason
    if said.status == "completed":
        return "stop"
    reason = said.incomplete_details.reason if said.incomplete_details else None
    return "length" if reason == "max_output_tokens" else reason
