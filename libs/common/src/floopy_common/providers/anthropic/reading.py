"""Reads JSON into types, saying in OpenAI's words what does not fit, and JSON that keeps its numbers."""

import json
import re
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from floopy_common.providers.anthropic import refusal

UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeError, ValueError)
NULL = b"null"

_T = TypeVar("_T")
_PATH = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`", re.DOTALL)
_TYPE = re.compile(r"Expected `(?P<wanted>[^`]+)`(?:, got `(?P<got>[^`]+)`)?")
_WORDS = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "a boolean",
    "array": "an array",
    "object": "an object",
}
_INT64 = re.compile(r"0|-?[1-9]\d{0,17}")


def read(name: str, raw: bytes | Raw, decoder: msgspec.json.Decoder[_T]) -> _T:
    """The value of the parameter `name`. Raises LineRefused, whose `param` leads to what is wrong."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise _refusal(name, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refusal.not_json(f"'{name}' is not JSON in valid Unicode.") from error


def _refusal(name: str, said: str) -> refusal.LineRefused:
    found = _PATH.fullmatch(said)
    what, path = (found["what"], name + (found["path"] or "")) if found else (said, name)
    if unknown := _UNKNOWN.fullmatch(what):
        return refusal.unknown_parameter(f"{path}.{unknown['name']}")
    if absent := _MISSING.fullmatch(what):
        return refusal.missing(f"{path}.{absent['name']}")
    if (wrong := _TYPE.fullmatch(what)) and wrong["got"] is not None:
        kinds = [kind.strip() for kind in wrong["wanted"].split("|")]
        wanted = " or ".join(_WORDS.get(kind, kind) for kind in kinds if kind != "null")
        got = _WORDS.get(wrong["got"], wrong["got"])
        return refusal.invalid_type(path, f"expected {wanted or 'null'}, but got {got} instead")
    return refusal.invalid_value(path, f"{what}.")


def load_exact(text: str | bytes) -> Any:
    """Any JSON, the last of equal keys winning; numbers that a decoder would change stay raw text.

    Raises ValueError or RecursionError for what is not JSON.
    """
    return json.loads(text, parse_int=_number, parse_float=_raw, parse_constant=_refuse_constant)


def dump(value: object) -> bytes:
    """Compact JSON in UTF-8. Raises UnicodeEncodeError for half a surrogate pair."""
    return _encode(value)


_encode = msgspec.json.Encoder().encode


def compact(text: str | bytes) -> bytes:
    """The same JSON without spaces and needless escapes, every number spelled as it was."""
    return dump(load_exact(text))


def _number(text: str) -> int | Raw:
    return int(text) if _INT64.fullmatch(text) else _raw(text)


def _raw(text: str) -> Raw:
    return Raw(text.encode())


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")
