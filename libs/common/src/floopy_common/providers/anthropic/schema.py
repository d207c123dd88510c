"""JSON schemas as Anthropic's structured outputs take them; what they cannot keep is told in words."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Raw

from floopy_common.providers.anthropic import reading, refusal

MAX_OPTIONAL = 24
MAX_UNIONS = 16
MAX_STRICT_TOOLS = 20
FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
)
EMPTY_OBJECT = Raw(b'{"type":"object","properties":{}}')

_TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})
_DEFS = ("$defs", "definitions")
_UNIONS = ("anyOf", "oneOf")
_NOT_SIMPLE = re.compile(r"\(\?|\\[bB1-9]")
"""Parts of a pattern that a grammar has no word for: look-around, word borders, back references."""
_REMEMBERED = 256
"""Schemas kept transformed: the lines of a batch mostly share one."""

_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


class _Unfit(Exception):  # noqa: N818 - a way out of a transformation
    """Why a schema cannot be asked for."""


@dataclass(frozen=True)
class Transformed:
    """A schema ready to be sent, and what it takes of a request's allowance."""

    schema: Raw
    optional: int
    unions: int


@dataclass
class Allowance:
    """What all the strict schemas of one request may have together."""

    optional: int = 0
    unions: int = 0

    def take(self, transformed: Transformed, param: str) -> Raw:
        self.optional += transformed.optional
        self.unions += transformed.unions
        if self.optional > MAX_OPTIONAL:
            raise refusal.invalid_value(param, f"more than {MAX_OPTIONAL} optional properties.")
        if self.unions > MAX_UNIONS:
            raise refusal.invalid_value(param, f"more than {MAX_UNIONS} unions.")
        return transformed.schema


def transform(raw: bytes, param: str) -> Transformed:
    """Raises LineRefused for a schema whose answers could not be as it says."""
    try:
        return _transform(raw)
    except _Unfit as unfit:
        raise refusal.invalid_value(param, f"{unfit}.") from unfit
    except reading.UNREADABLE as error:
        raise refusal.invalid_value(param, "it is not a JSON schema.") from error


def plain_input_schema(raw: bytes, param: str) -> Raw:
    """A tool's parameters as they are; their root is made an object where it does not say what it is."""
    if raw in {b"", reading.NULL}:
        return EMPTY_OBJECT
    try:
        members = _decode_members(raw)
    except reading.UNREADABLE as error:
        raise refusal.invalid_type(param, "expected an object") from error
    _check_root(members, param)
    if "type" in members:
        return Raw(raw)
    return Raw(reading.dump({"type": "object", **members}))


def _check_root(members: Mapping[str, Raw], param: str) -> None:
    combined = next((word for word in ("anyOf", "oneOf", "allOf") if word in members), None)
    if combined is not None:
        raise refusal.invalid_value(param, f"a tool's parameters may not be an '{combined}' at their root.")
    if "type" in members and msgspec.json.decode(members["type"]) != "object":
        raise refusal.invalid_value(param, "a tool's parameters must be of type 'object'.")


def strict_input_schema(raw: bytes, param: str) -> Transformed:
    """A tool's parameters that calls must keep to."""
    return transform(bytes(plain_input_schema(raw, param)), param)


@lru_cache(maxsize=_REMEMBERED)
def _transform(raw: bytes) -> Transformed:
    schema = reading.load_exact(raw)
    if not isinstance(schema, dict):
        raise _Unfit("a schema must be an object")
    work = _Transformation()
    root = work.node(schema)
    if "$ref" not in root and root.get("type") != "object":
        raise _Unfit("a schema's root must be of type 'object'")
    _refuse_recursion(root)
    return Transformed(Raw(reading.dump(root)), work.optional, work.unions)


class _Transformation:
    """Walks a schema once, building the one that is sent."""

    def __init__(self) -> None:
        self.optional = 0
        self.unions = 0

    def node(self, schema: Any) -> dict[str, Any]:
        if not isinstance(schema, dict):
            raise _Unfit("every schema inside it must be an object")
        rest: dict[str, Any] = dict(schema)
        made: dict[str, Any] = {}
        definitions = {
            name: schema for word in _DEFS for name, schema in _object(rest.pop(word, None)).items()
        }
        if definitions:
            made["$defs"] = {name: self.node(inner) for name, inner in definitions.items()}
        if "$ref" in rest:
            made["$ref"] = _local(rest["$ref"])
            return made
        self._kind(rest, made)
        self._words(rest, made)
        return made

    def _kind(self, rest: dict[str, Any], made: dict[str, Any]) -> None:
        self._literals(rest, made)
        literal = "enum" in made or "const" in made
        combined = self._combined(rest, made)
        kinds = _kinds(rest.pop("type", None), rest)
        if literal or combined:
            return
        if not kinds:
            raise _Unfit("every schema inside it needs a 'type', 'anyOf', 'enum' or '$ref'")
        if len(kinds) > 1:
            self.unions += 1
        made["type"] = kinds[0] if len(kinds) == 1 else kinds
        if "object" in kinds:
            self._object(rest, made)
        if "array" in kinds:
            self._array(rest, made)
        if "string" in kinds:
            _string(rest, made)

    def _literals(self, rest: dict[str, Any], made: dict[str, Any]) -> None:
        values = rest.get("enum")
        if isinstance(values, list) and values and all(_is_primitive(value) for value in values):
            made["enum"] = rest.pop("enum")
        if "const" in rest and _is_primitive(rest["const"]):
            made["const"] = rest.pop("const")

    def _combined(self, rest: dict[str, Any], made: dict[str, Any]) -> bool:
        for word in (*_UNIONS, "allOf"):
            variants = rest.get(word)
            if isinstance(variants, list) and variants:
                del rest[word]
                self.unions += word in _UNIONS
                made["allOf" if word == "allOf" else "anyOf"] = [self.node(inner) for inner in variants]
                return True
        return False

    def _object(self, rest: dict[str, Any], made: dict[str, Any]) -> None:
        properties = _object(rest.pop("properties", None))
        others = rest.pop("additionalProperties", False)
        if isinstance(others, dict) and others:
            raise _Unfit("objects with free property names ('additionalProperties') cannot be asked for")
        made["properties"] = {name: self.node(inner) for name, inner in properties.items()}
        made["additionalProperties"] = False
        required = rest.pop("required", None)
        if isinstance(required, list):
            made["required"] = required
        named = required if isinstance(required, list) else []
        self.optional += sum(name not in named for name in properties)

    def _array(self, rest: dict[str, Any], made: dict[str, Any]) -> None:
        if "items" in rest:
            made["items"] = self.node(rest.pop("items"))
        least = rest.get("minItems")
        if isinstance(least, int) and least in {0, 1}:
            made["minItems"] = rest.pop("minItems")

    def _words(self, rest: dict[str, Any], made: dict[str, Any]) -> None:
        """What is left over is said in the description, so that the model can still follow it."""
        said = rest.pop("description", None)
        title = rest.pop("title", None)
        if title is not None:
            made["title"] = title
        left = ", ".join(f"{name}: {reading.dump(value).decode()}" for name, value in rest.items())
        parts = [part for part in (said, f"{{{left}}}" if left else None) if isinstance(part, str) and part]
        if parts:
            made["description"] = "\n\n".join(parts)


def _string(rest: dict[str, Any], made: dict[str, Any]) -> None:
    if rest.get("format") in FORMATS:
        made["format"] = rest.pop("format")
    pattern = rest.get("pattern")
    if isinstance(pattern, str) and not _NOT_SIMPLE.search(pattern):
        made["pattern"] = rest.pop("pattern")


def _kinds(said: Any, rest: Mapping[str, Any]) -> list[str]:
    """The types a schema allows; one that lacks the word may still show it by what it describes."""
    if said is None:
        return ["object"] if "properties" in rest else ["array"] if "items" in rest else []
    kinds = said if isinstance(said, list) else [said]
    if not kinds or any(not isinstance(kind, str) or kind not in _TYPES for kind in kinds):
        raise _Unfit("a 'type' is none that JSON schemas know")
    return kinds


def _object(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _Unfit("'properties' and '$defs' must be objects")
    return value


def _is_primitive(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool | Raw)


def _local(ref: Any) -> str:
    for word in _DEFS:
        prefix = f"#/{word}/"
        if isinstance(ref, str) and ref.startswith(prefix) and "/" not in ref[len(prefix) :]:
            return f"#/$defs/{ref[len(prefix) :]}"
    if ref == "#":
        raise _Unfit("recursive schemas cannot be asked for")
    raise _Unfit("a '$ref' may only lead to the schema's own '$defs'")


def _refuse_recursion(root: Mapping[str, Any]) -> None:
    definitions: Mapping[str, Any] = root.get("$defs", {})
    graph = {name: _refs(inner) for name, inner in definitions.items()}
    if unknown := (_refs(root).union(*graph.values()) - graph.keys()):
        raise _Unfit(f"a '$ref' leads nowhere: {min(unknown)}")
    done: set[str] = set()
    while ready := {name for name, refs in graph.items() if name not in done and refs <= done}:
        done |= ready
    if len(done) < len(graph):
        raise _Unfit("recursive schemas cannot be asked for")


def _refs(schema: Any) -> set[str]:
    """Names of the definitions that a schema leads to, those of its own `$defs` left out."""
    found: set[str] = set()
    pending = [schema]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending += node
        elif isinstance(node, dict):
            ref = node.get("$ref")
            if isinstance(ref, str):
                found.add(ref.removeprefix("#/$defs/"))
            pending += [inner for name, inner in node.items() if name != "$defs"]
    return found
