"""Turns a decoding failure of a request body into the error OpenAI words for it."""

import re
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from floopy_simulator.openai.errors import ApiError

PATH = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)
TYPE = re.compile(r"^Expected `(?P<wanted>[^`]+)`, got `(?P<got>[^`]+)`$")
RANGE = re.compile(r"^Expected `(?P<kind>\w+)` (?P<sign>>=|<=) (?P<bound>\S+)$")
LENGTH = re.compile(r"^Expected `(?P<kind>\w+)` of length (?P<sign>>=|<=) (?P<bound>\d+)$")
UNKNOWN = re.compile(r"^Object contains unknown field `(?P<name>.*)`$")
MISSING = re.compile(r"^Object missing required field `(?P<name>.*)`$")
ENUM = re.compile(r"^Invalid enum value (?P<value>.*)$")

WANTED = {
    "str": "a string",
    "int": "an integer",
    "float": "a decimal",
    "bool": "a boolean",
    "array": "an array",
    "object": "an object",
}
GOT = WANTED | {"null": "null"}
SIDES = {">=": "below_min", "<=": "above_max"}
KINDS = {"int": "integer", "float": "decimal", "str": "string", "array": "array", "object": "object"}


def to_api_error(error: msgspec.DecodeError, body: bytes, struct: type[msgspec.Struct]) -> ApiError:
    """`struct` is what the body was decoded as: it names the values an enumeration allows."""
    if not isinstance(error, msgspec.ValidationError):
        return ApiError(400, "We could not parse the JSON body of your request.")
    match = PATH.match(str(error))
    what, path = (match["what"], (match["path"] or "").lstrip(".")) if match else (str(error), "")
    for pattern, word in ((UNKNOWN, _unknown), (MISSING, _missing), (TYPE, _wrong_type)):
        if found := pattern.match(what):
            return word(found, path)
    for pattern in (RANGE, LENGTH):
        if found := pattern.match(what):
            return _out_of_range(found, path, body)
    if found := ENUM.match(what):
        return _bad_choice(found, path, struct)
    return ApiError(400, f"Invalid value for '{path}': {what}.", param=path or None, code="invalid_value")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _unknown(found: re.Match[str], path: str) -> ApiError:
    if not path:
        # Chat completions names neither param nor code for a stray top-level argument.
        return ApiError(400, f"Unrecognized request argument supplied: {found['name']}")
    param = _join(path, found["name"])
    return ApiError(400, f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter")


def _missing(found: re.Match[str], path: str) -> ApiError:
    param = _join(path, found["name"])
    message = f"Missing required parameter: '{param}'."
    return ApiError(400, message, param=param, code="missing_required_parameter")


def _wrong_type(found: re.Match[str], path: str) -> ApiError:
    kinds = [kind.strip() for kind in found["wanted"].split("|")]
    wanted = " or ".join(WANTED.get(kind, kind) for kind in kinds if kind != "null")
    got = GOT.get(found["got"], found["got"])
    message = f"Invalid type for '{path}': expected {wanted}, but got {got} instead."
    return ApiError(400, message, param=path or None, code="invalid_type")


def _out_of_range(found: re.Match[str], path: str, body: bytes) -> ApiError:
    kind, side = KINDS.get(found["kind"], found["kind"]), SIDES[found["sign"]]
    bound = found["bound"].removesuffix(".0")
    measure = "length" if found.re is LENGTH else "value"
    side_words = ("minimum" if side == "below_min" else "maximum") + f" {measure}"
    value = _value_at(body, path)
    shown = len(value) if found.re is LENGTH and hasattr(value, "__len__") else value
    expected = (
        f"a {measure} {found['sign']} {bound}" if measure == "value" else f"length {found['sign']} {bound}"
    )
    position = "below" if side == "below_min" else "above"
    message = (
        f"Invalid '{path}': {kind} {position} {side_words}. Expected {expected}, but got {shown} instead."
    )
    return ApiError(400, message, param=path, code=f"{kind}_{side}_{measure}")


def _bad_choice(found: re.Match[str], path: str, struct: type[msgspec.Struct]) -> ApiError:
    choices = [f"'{choice}'" for choice in _choices_at(struct, path)]
    allowed = ", ".join(choices[:-1]) + (f" and {choices[-1]}" if len(choices) > 1 else "".join(choices))
    message = f"Invalid value: {found['value']}. Supported values are: {allowed}."
    return ApiError(400, message, param=path, code="invalid_value")


def _steps(path: str) -> list[str]:
    return [step for step in re.split(r"[.\[\]]+", path) if step]


def _value_at(body: bytes, path: str) -> Any:  # JSON may hold anything
    value = msgspec.json.decode(body)
    for step in _steps(path):
        value = value[int(step)] if isinstance(value, list) else value.get(step)
    return value


def _choices_at(struct: type[msgspec.Struct], path: str) -> list[str]:
    hint: Any = struct  # type hints have no common type
    for step in _steps(path):
        candidates = [
            part for part in _parts(hint) if isinstance(part, type) and issubclass(part, msgspec.Struct)
        ]
        if step.isdigit() or step == "...":
            continue
        hint = next((get_type_hints(part)[step] for part in candidates if step in get_type_hints(part)), None)
    return [str(choice) for part in _parts(hint) if get_origin(part) is Literal for choice in get_args(part)]


def _parts(hint: Any) -> list[Any]:  # type hints have no common type
    """A hint and everything inside its unions and containers."""
    if get_origin(hint) is Literal:
        return [hint]
    return [hint, *(part for inner in get_args(hint) for part in _parts(inner))]
