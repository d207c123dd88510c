"""Scripted behaviour of one line, written into the request itself.

Grammar: `sim` in the body's metadata, or `[sim: ...]` anywhere in its text; words separated by spaces,
each `name` or `name=value`.
"""

import re

import msgspec

MARKER = re.compile(rb"\[sim:([^\]\\\"]*)\]")


class DirectiveError(ValueError):
    """A directive that this program does not know: the line is answered with 400."""


class Directive(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a line asks for; see the README for each word."""

    status: int | None = None
    code: str | None = None
    times: int | None = None
    error: str | None = None
    missing: bool = False
    duplicate: str | None = None
    unknown: bool = False
    garbled: bool = False
    truncate: bool = False
    both: bool = False
    huge: int = 0
    words: int | None = None
    refusal: bool = False
    empty: bool = False
    bad_json: bool = False
    bad_tool: bool = False
    repeat: bool = False
    no_usage: bool = False
    bad_usage: bool = False
    finish: str | None = None
    model: str | None = None


BARE_VALUES = {"duplicate": "same"}


def parse_directive(text: str) -> Directive:
    words: dict[str, object] = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        words[name] = value if equals else BARE_VALUES.get(name, True)
    try:
        return msgspec.convert(words, Directive, strict=False)
    except msgspec.ValidationError as error:
        raise DirectiveError(f"Simulator directive {text!r} is not understood: {error}.") from error


class _Metadata(msgspec.Struct):
    sim: str | None = None


class _Body(msgspec.Struct):
    metadata: _Metadata | None = None


_decode_body = msgspec.json.Decoder(_Body).decode


def find_directive(body: bytes) -> Directive | None:
    """The directive of a request body, or None; a body that is no request has none."""
    if b"sim" not in body:
        return None
    if b'"sim"' in body:
        try:
            found = _decode_body(body).metadata
        except msgspec.DecodeError:
            found = None
        if found is not None and found.sim is not None:
            return parse_directive(found.sim)
    return find_marker(body)


def find_marker(body: bytes) -> Directive | None:
    """Only what stands in the text: for bodies whose metadata has no room for it."""
    if b"[sim:" not in body:
        return None
    marker = MARKER.search(body)
    return None if marker is None else parse_directive(marker.group(1).decode(errors="replace"))
