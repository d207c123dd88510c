"""Structured outputs: a schema is kept as far as a grammar can hold it, or refused where it is wrong."""

from collections.abc import Callable
from typing import Any

import pytest
from floopy_anthropic.tools import tool

Params = Callable[..., dict[str, Any]]
Refusal = Callable[..., tuple[str | None, str | None]]
SCHEMA = "response_format.json_schema.schema"


def formatted(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": schema}}


@pytest.mark.edge(47)
def test_a_schema_is_closed_at_every_level_and_keeps_what_is_optional(params_of: Params) -> None:
    inner = {"type": "object", "properties": {"b": {"type": ["string", "null"]}}, "description": "In."}
    schema = {"type": "object", "title": "T", "properties": {"a": inner}, "additionalProperties": True}

    params = params_of(response_format=formatted(schema))

    assert params["output_config"] == {
        "format": {
            "type": "json_schema",
            "schema": {
                "type": "object",
                "properties": {
                    "a": {
                        "type": "object",
                        "properties": {"b": {"type": ["string", "null"]}},
                        "additionalProperties": False,
                        "description": "In.",
                    }
                },
                "additionalProperties": False,
                "title": "T",
            },
        }
    }


@pytest.mark.edge(47)
@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (
            {"oneOf": [{"type": "string"}, {"type": "null"}]},
            {"anyOf": [{"type": "string"}, {"type": "null"}]},
        ),
        ({"allOf": [{"type": "string"}]}, {"allOf": [{"type": "string"}]}),
        ({"enum": ["a", 1, 2.5, None]}, {"enum": ["a", 1, 2.5, None]}),
        ({"type": "string", "const": "a"}, {"const": "a"}),
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date"}),
        ({"type": "string", "format": "zip"}, {"type": "string", "description": '{format: "zip"}'}),
        ({"type": "string", "pattern": "^[a-z]+$"}, {"type": "string", "pattern": "^[a-z]+$"}),
        ({"type": "string", "pattern": "(?=a)"}, {"type": "string", "description": '{pattern: "(?=a)"}'}),
        (
            {"type": "string", "minLength": 1, "description": "A."},
            {"type": "string", "description": "A.\n\n{minLength: 1}"},
        ),
        ({"type": "number", "minimum": 1.0}, {"type": "number", "description": "{minimum: 1.0}"}),
        (
            {"items": {"type": "null"}, "minItems": 1},
            {"type": "array", "items": {"type": "null"}, "minItems": 1},
        ),
        (
            {"type": "array", "items": {"type": "null"}, "minItems": 2, "uniqueItems": True},
            {"type": "array", "items": {"type": "null"}, "description": "{minItems: 2, uniqueItems: true}"},
        ),
        ({"properties": {}}, {"type": "object", "properties": {}, "additionalProperties": False}),
    ],
)
def test_a_property_keeps_what_a_grammar_can_hold_and_says_the_rest(
    params_of: Params, given: Any, sent: Any
) -> None:
    schema = {"type": "object", "properties": {"a": given}, "required": ["a"]}

    found = params_of(response_format=formatted(schema))["output_config"]["format"]["schema"]

    assert found["properties"]["a"] == sent


@pytest.mark.edge(47)
@pytest.mark.parametrize("word", ["$defs", "definitions"])
def test_definitions_of_the_schema_itself_are_kept(params_of: Params, word: str) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": f"#/{word}/A"}},
        word: {
            "A": {"type": "object", "properties": {"b": {"$ref": f"#/{word}/B"}}},
            "B": {"type": "string"},
        },
    }

    found = params_of(response_format=formatted(schema))["output_config"]["format"]["schema"]

    assert found["properties"] == {"a": {"$ref": "#/$defs/A"}}
    assert found["$defs"]["A"]["properties"] == {"b": {"$ref": "#/$defs/B"}}
    assert found["$defs"]["A"]["additionalProperties"] is False


def optional(count: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(count)}}


def unions(count: int) -> dict[str, Any]:
    names = [f"p{n}" for n in range(count)]
    return {
        "type": "object",
        "properties": {n: {"type": ["string", "null"]} for n in names},
        "required": names,
    }


@pytest.mark.edge(47)
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/A"}},
            "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}]}},
        },
        {
            "type": "object",
            "properties": {},
            "$defs": {"A": {"items": {"$ref": "#/$defs/B"}}, "B": {"items": {"$ref": "#/$defs/A"}}},
        },
        {"type": "object", "properties": {"a": {"$ref": "https://example.com/a"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/properties/b"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}},
        {"type": "object", "properties": {"a": {}}},
        {"type": "object", "properties": {"a": True}},
        {"type": "object", "properties": {"a": {"type": "text"}}},
        {"type": "object", "properties": {"a": {"type": []}}},
        {"type": "object", "properties": []},
        {
            "type": "object",
            "properties": {"a": {"type": "object", "additionalProperties": {"type": "string"}}},
        },
        {"type": "array", "items": {"type": "string"}},
        {"anyOf": [{"type": "object", "properties": {}}]},
        {},
        [],
        "a",
        optional(25),
        unions(17),
    ],
)
def test_a_schema_that_cannot_be_kept_is_refused(refusal_of: Refusal, schema: Any) -> None:
    assert refusal_of(response_format=formatted(schema)) == (SCHEMA, "invalid_value")


@pytest.mark.edge(47)
def test_as_much_as_a_schema_may_have_is_taken(params_of: Params) -> None:
    for schema in (optional(24), unions(16)):
        assert params_of(response_format=formatted(schema))


@pytest.mark.edge(47)
def test_what_schemas_may_have_they_may_have_together(refusal_of: Refusal) -> None:
    tools = [tool("a", strict=True, parameters=optional(13)), tool("b", strict=True, parameters=optional(12))]

    assert refusal_of(tools=tools) == ("tools[1].function.parameters", "invalid_value")


@pytest.mark.edge(47)
@pytest.mark.parametrize(
    ("wanted", "param", "code"),
    [
        ({"type": "json_schema"}, "response_format.json_schema", "missing_required_parameter"),
        ({"type": "json_schema", "json_schema": {"name": "a"}}, SCHEMA, "missing_required_parameter"),
        ({"type": "xml"}, "response_format.type", "invalid_value"),
        ({}, "response_format.type", "missing_required_parameter"),
        ("json", "response_format", "invalid_type"),
    ],
)
def test_a_format_that_is_none_is_refused(refusal_of: Refusal, wanted: Any, param: str, code: str) -> None:
    assert refusal_of(response_format=wanted) == (param, code)
