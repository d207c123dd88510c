"""One line of the input as rendering needs it: its custom_id, its request, and where that lies."""

import re

import msgspec

from floopy_common.domain.errors import Invalid
from floopy_reconciler.core.previews import asked_in, asked_of

_BOM = b"\xef\xbb\xbf"
_TEXT = rb'"[ !#-\[\]-~]*"'
_PLAIN_HEAD = re.compile(
    rb'\{"custom_id": ?(%b), ?"method": ?"POST", ?"url": ?%b, ?"body": ?(?=\{)' % (_TEXT, _TEXT)
)
"""What precedes the body of nearly every request; behind it come the body and one brace."""
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _InputLine(msgspec.Struct, gc=False):
    custom_id: msgspec.Raw
    body: msgspec.Raw


_decode_line = msgspec.json.Decoder(_InputLine).decode
_decode_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


class Question(msgspec.Struct, gc=False):
    """JSON all of it: the custom_id as it is `spelled` and as we write it, the request's body, its preview.

    `body_at`: where the body begins in the line; `unconstrained`: it names neither tools nor a form.
    """

    spelled: bytes
    custom_id: bytes
    body: bytes
    body_at: int
    unconstrained: bool
    preview: bytes | None


def read_question(number: int, raw: bytes) -> Question:
    """Raises Invalid for a line that cannot be read."""
    head = _PLAIN_HEAD.match(raw)
    if head is None or raw[-2:] != b"}}":
        return _read(number, raw)
    at = head.end()
    body = raw[at:-1]
    try:
        unconstrained, preview = asked_in(body)
    except _UNREADABLE:
        return _read(number, raw)
    custom_id = head[1]
    return Question(custom_id, custom_id, body, at, unconstrained, preview)


def _read(number: int, raw: bytes) -> Question:
    """The same of a line spelled in any way."""
    skip = len(_BOM) if raw.startswith(_BOM) else 0
    try:
        line = _decode_line(raw[skip:] if skip else raw)
        spelled, body = bytes(line.custom_id), bytes(line.body)
        if not spelled.isascii():
            spelled.decode()
        custom_id = _encode(_decode_text(spelled)) if b"\\" in spelled else spelled
    except _UNREADABLE as error:
        raise Invalid(f"line {number} of the input cannot be read: {error}") from error
    at = len(raw) - len(body) - 1
    if not raw.startswith(body, at):
        # the same bytes may stand earlier in the line: then they are as good a reference
        at = raw.find(body, skip)
    return Question(spelled, custom_id, body, at, *asked_of(body))
