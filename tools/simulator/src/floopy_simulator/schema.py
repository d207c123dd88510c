"""A small JSON value that a given JSON schema accepts."""

from typing import Any

Schema = dict[str, Any]
FORMATS = {
    "date-time": "2026-01-15T12:00:00Z",
    "date": "2026-01-15",
    "time": "12:00:00Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "duration": "P1D",
}
MAX_DEPTH = 12
"""Recursive schemas must end somewhere; optional parts are left out, so only required recursion gets here."""


def make_instance(schema: Schema, text: str = "text") -> Any:  # any JSON value
    """Fills every declared property; strings carry `text` where the schema leaves them free."""
    return _make(schema, schema, text, 0)


def _make(schema: Any, root: Schema, text: str, depth: int) -> Any:  # any JSON value
    schema = _merge(schema, root)
    for fixed in ("const", "default"):
        if fixed in schema:
            return schema[fixed]
    if schema.get("enum"):
        return schema["enum"][0]
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return _make(_simplest(choices, depth), root, text, depth + 1)
    return _make_kind(_kind(schema), schema, root, text, depth)


def _make_kind(kind: str, schema: Schema, root: Schema, text: str, depth: int) -> Any:  # any JSON value
    match kind:
        case "object":
            return _make_object(schema, root, text, depth)
        case "array":
            least = schema.get("minItems", 0 if depth > MAX_DEPTH else 1)
            return [_make(schema.get("items", {}), root, text, depth + 1) for _ in range(least)]
        case "string":
            return _make_string(schema, text)
        case "integer" | "number":
            return _make_number(schema, whole=kind == "integer")
        case _:
            return True if kind == "boolean" else None


def _merge(schema: Any, root: Schema) -> Schema:
    """References followed and `allOf` folded in."""
    merged: Schema = _follow(schema, root) if isinstance(schema, dict) else {}
    for part in merged.get("allOf", ()):
        inner = _merge(part, root)
        properties = {**merged.get("properties", {}), **inner.get("properties", {})}
        required = [*merged.get("required", ()), *inner.get("required", ())]
        merged = {**inner, **merged}
        if properties:
            merged |= {"properties": properties, "required": required}
    return merged


def _follow(schema: Schema, root: Schema) -> Schema:
    for _ in range(MAX_DEPTH):
        if "$ref" not in schema:
            break
        target: Any = root  # a JSON pointer walks through anything
        for step in schema["$ref"].removeprefix("#").strip("/").split("/"):
            target = target[step] if step else target
        schema = {**target, **{name: value for name, value in schema.items() if name != "$ref"}}
    return schema


def _simplest(choices: list[Any], depth: int) -> Any:
    """The first choice, or the null one where a recursive schema has to stop."""
    if depth > MAX_DEPTH:
        for choice in choices:
            if isinstance(choice, dict) and choice.get("type") == "null":
                return choice
    return choices[0]


def _kind(schema: Schema) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    if kind is None:
        kind = "object" if "properties" in schema else "array" if "items" in schema else "string"
    return str(kind)


def _make_object(schema: Schema, root: Schema, text: str, depth: int) -> Schema:
    properties = schema.get("properties", {})
    names = (
        schema.get("required", ()) if depth > 2 else dict.fromkeys([*properties, *schema.get("required", ())])
    )
    return {name: _make(properties.get(name, {}), root, text, depth + 1) for name in names}


def _make_string(schema: Schema, text: str) -> str:
    if schema.get("format") in FORMATS:
        return FORMATS[schema["format"]]
    if schema.get("pattern"):
        return _match_simple_pattern(schema["pattern"])
    value = text
    if len(value) < schema.get("minLength", 0):
        value = value.ljust(schema["minLength"], "x")
    return value[: schema["maxLength"]] if "maxLength" in schema else value


def _match_simple_pattern(pattern: str) -> str:
    """Good for literal patterns and the first of plain alternatives; others get their literal characters."""
    plain = pattern.removeprefix("^").removesuffix("$").strip("()").split("|")[0]
    return "".join(character for character in plain if character not in "^$*+?.()[]{}\\")


def _make_number(schema: Schema, *, whole: bool) -> int | float:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    step = schema.get("multipleOf", 1)
    value = low if low is not None else min(high, 1) if high is not None else 1
    if "exclusiveMinimum" in schema and value == schema["exclusiveMinimum"]:
        value = value + step if high is None or whole else (value + high) / 2
    if "multipleOf" in schema:
        value = -(-value // step) * step
    return int(value) if whole else value
