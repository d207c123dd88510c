"""Turns a decoding failure into the sentence Anthropic has for it."""

import re
from typing import Any, get_args

import msgspec

from floopy_simulator.anthropic.errors import ApiError, invalid
from floopy_simulator.anthropic.message_request import CHOICES, ImageType

PATH = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)
TYPE = re.compile(r"^Expected `(?P<wanted>[^`]+)`(?:, got `[^`]+`)?$")
RANGE = re.compile(r"^Expected `\w+` (?P<sign>>=|<=) (?P<bound>\S+)$")
LENGTH = re.compile(r"^Expected `\w+` of length (?P<sign>>=|<=) (?P<bound>\d+)$")
REGEX = re.compile(r"^Expected `str` matching regex (?P<regex>'.*')$")
UNKNOWN = re.compile(r"^Object contains unknown field `(?P<name>.*)`$")
MISSING = re.compile(r"^Object missing required field `(?P<name>.*)`$")
TAG = re.compile(r"^Invalid value (?P<value>'.*')$")
ENUM = re.compile(r"^Invalid enum value (?P<value>.*)$")
STEP = re.compile(r"[^.\[\]]+")
WANTED = {
    "str": "Input should be a valid string",
    "int": "Input should be a valid integer",
    "float": "Input should be a valid number",
    "bool": "Input should be a valid boolean",
    "array": "Input should be a valid list",
    "object": "Input should be an object",
}
NOT_JSON = "The request body is not valid JSON: {}"


def to_api_error(error: msgspec.DecodeError, body: bytes) -> ApiError:
    if not isinstance(error, msgspec.ValidationError):
        return invalid(NOT_JSON.format(error))
    match = PATH.match(str(error))
    what, steps = str(error), list[str]()
    if match is not None:
        what, steps = match["what"], STEP.findall(match["path"] or "")
    if found := UNKNOWN.match(what):
        return _problem(body, [*steps, found["name"]], "Extra inputs are not permitted")
    if found := MISSING.match(what):
        return _problem(body, [*steps, found["name"]], "Field required")
    if found := TAG.match(what):
        return _problem(
            body, steps[:-1], f"Input tag {found['value']} found using 'type' is not expected here"
        )
    return _problem(body, steps, _sentence(what, steps))


def _sentence(what: str, steps: list[str]) -> str:
    if found := REGEX.match(what):
        return f"String should match pattern {found['regex']}"
    if found := RANGE.match(what):
        side = "greater" if found["sign"] == ">=" else "less"
        return f"Input should be {side} than or equal to {found['bound'].removesuffix('.0')}"
    if found := LENGTH.match(what):
        side = "least" if found["sign"] == ">=" else "most"
        return (
            f"String should have at {side} {found['bound']} character{'s' if found['bound'] != '1' else ''}"
        )
    if ENUM.match(what):
        return _permitted(steps[-1] if steps else "")
    found = TYPE.match(what)
    first = found["wanted"].split("|")[0].strip() if found else ""
    return WANTED.get(first, what)


def _permitted(name: str) -> str:
    words = get_args(ImageType if name == "media_type" else CHOICES.get(name))
    quoted = [f"'{word}'" for word in words]
    if not quoted:
        return "Input is not one of the permitted values"
    return "Input should be " + " or ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1])))


def _problem(body: bytes, steps: list[str], sentence: str) -> ApiError:
    path = ".".join(_with_tags(msgspec.json.decode(body), steps))
    return invalid(f"{path}: {sentence}" if path else sentence)


def _with_tags(value: Any, steps: list[str]) -> list[str]:  # JSON may hold anything
    """The path as Anthropic writes it: which kind of block was meant stands in it too."""
    written: list[str] = []
    for place, step in enumerate(steps):
        written.append(step)
        value = _enter(value, step)
        tag = value.get("type") if isinstance(value, dict) else None
        if place == len(steps) - 1:
            break
        if step == "source" or (step.isdigit() and steps[place - 1] == "content"):
            written.append(str(tag))
        elif step.isdigit() and steps[place - 1] == "tools":
            written.append(str(tag or "custom"))
        elif step == "thinking" and tag is not None:
            written.append(str(tag))
    return written


def _enter(value: Any, step: str) -> Any:  # JSON may hold anything
    if isinstance(value, list) and step.isdigit() and int(step) < len(value):
        return value[int(step)]
    return value.get(step) if isinstance(value, dict) else None
