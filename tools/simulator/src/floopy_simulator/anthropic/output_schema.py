"""The part of JSON schema that structured outputs and strict tools take."""

import re
from typing import Any

from floopy_simulator.anthropic.errors import ApiError, invalid

FORMATS = frozenset(
    {
        "date-time",
        "time",
        "date",
        "duration",
        "email",
        "hostname",
        "uri",
        "ipv4",
        "ipv6",
        "uuid",
    }
)
COMMON = frozenset(
    {"type", "title", "description", "default", "enum", "const", "anyOf", "allOf", "$ref", "$defs", "$schema"}
)
BY_TYPE = {
    "object": COMMON | {"properties", "required", "additionalProperties"},
    "array": COMMON | {"items", "minItems"},
    "string": COMMON | {"format", "pattern"},
}
KINDS = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})
MAX_OPTIONAL = 24
MAX_UNIONS = 16
COMPLEX_PATTERN = re.compile(r"\(\?|\\[1-9bB]")
"""Look-around, back-references and word boundaries."""


def check_output_schema(schema: dict[str, Any], path: str) -> None:
    """`path` is where the schema stands in the request."""
    checker = _Checker(schema, path)
    checker.check(schema, ())
    if checker.optional > MAX_OPTIONAL:
        raise invalid(
            f"{path}: Schemas contain too many optional parameters ({checker.optional}), which would make "
            f"grammar compilation inefficient. Reduce their number (limit: {MAX_OPTIONAL})."
        )
    if checker.unions > MAX_UNIONS:
        raise invalid(
            f"{path}: Schemas contain too many parameters with union types ({checker.unions} parameters with "
            f"type arrays or anyOf), limit: {MAX_UNIONS}."
        )


class _Checker:
    """Counts as it goes; a definition is walked where it is referred to, so recursion shows itself."""

    def __init__(self, root: dict[str, Any], path: str) -> None:
        self._definitions = root.get("$defs", {})
        self._path = path
        self.optional = 0
        self.unions = 0

    def check(self, schema: Any, above: tuple[str, ...]) -> None:  # JSON may hold anything
        if not isinstance(schema, dict):
            raise self._problem("Schema must be an object")
        if "$ref" in schema:
            self._follow(schema["$ref"], above)
            return
        kinds = self._kinds(schema)
        for kind in kinds:
            self._check_keywords(schema, kind)
        self.unions += "anyOf" in schema or len(kinds) > 1
        for inner in [*schema.get("anyOf", ()), *schema.get("allOf", ())]:
            self.check(inner, above)
        if "object" in kinds:
            self._check_object(schema, above)
        if "array" in kinds:
            self._check_array(schema, above)
        if "string" in kinds:
            self._check_string(schema)

    def _kinds(self, schema: dict[str, Any]) -> list[str]:
        if "oneOf" in schema:
            raise self._problem("'oneOf' is not supported. Please use 'anyOf'.")
        for value in [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else ())]:
            if isinstance(value, dict | list):
                raise self._problem("Only primitive values are supported in 'enum' and 'const'")
        kind = schema.get("type")
        kinds = kind if isinstance(kind, list) else [] if kind is None else [kind]
        if not kinds and not any(name in schema for name in ("anyOf", "allOf", "enum", "const")):
            raise self._problem("Schema must have a 'type', 'anyOf', 'allOf', 'enum', 'const' or '$ref'")
        for name in kinds:
            if not isinstance(name, str) or name not in KINDS:
                raise self._problem(f"Unknown type: {name!r}")
        return kinds

    def _check_keywords(self, schema: dict[str, Any], kind: str) -> None:
        allowed = BY_TYPE.get(kind, COMMON)
        if isinstance(schema["type"], list):
            allowed = allowed.union(*(BY_TYPE.get(one, COMMON) for one in schema["type"]))
        stray = [name for name in schema if name not in allowed]
        if stray:
            names = ", ".join(stray)
            verb = "property '{}' is" if len(stray) == 1 else "properties {} are"
            raise self._problem(f"For '{kind}' type, {verb.format(names)} not supported")

    def _check_object(self, schema: dict[str, Any], above: tuple[str, ...]) -> None:
        extra = schema.get("additionalProperties")
        if extra is None:
            raise self._problem("For 'object' type, 'additionalProperties' must be explicitly set to false")
        if extra is not False:
            raise self._problem(
                "For 'object' type, 'additionalProperties: true' is not supported. "
                "Please set 'additionalProperties' to false"
            )
        properties, required = schema.get("properties", {}), schema.get("required", [])
        unknown = [name for name in required if name not in properties]
        if unknown:
            raise self._problem(f"For 'object' type, required property '{unknown[0]}' is not in 'properties'")
        self.optional += len(properties.keys() - set(required))
        for inner in properties.values():
            self.check(inner, above)

    def _check_array(self, schema: dict[str, Any], above: tuple[str, ...]) -> None:
        if schema.get("minItems", 0) not in {0, 1}:
            raise self._problem("For 'array' type, 'minItems' values other than 0 or 1 are not supported")
        if "items" in schema:
            self.check(schema["items"], above)

    def _check_string(self, schema: dict[str, Any]) -> None:
        wanted = schema.get("format")
        if wanted is not None and wanted not in FORMATS:
            raise self._problem(f"For 'string' type, format '{wanted}' is not supported")
        if COMPLEX_PATTERN.search(schema.get("pattern", "")):
            raise self._problem("For 'string' type, this 'pattern' is too complex")

    def _follow(self, reference: Any, above: tuple[str, ...]) -> None:  # JSON may hold anything
        name = str(reference).removeprefix("#/$defs/")
        if name == reference or name not in self._definitions:
            raise self._problem(f"$ref '{reference}' is not a definition of this schema")
        if name in above:
            raise self._problem(f"Circular reference detected in schema definitions: {name}")
        self.check(self._definitions[name], (*above, name))

    def _problem(self, sentence: str) -> ApiError:
        return invalid(f"{self._path}: {sentence}")
