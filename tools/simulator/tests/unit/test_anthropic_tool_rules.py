"""What tools and output schemas of a Messages request may be, rule by rule."""

import pytest
from message_rules import CALL, CLOSED, RESULT, TOOL, assistant, one, refusal, shape, user

TOOLS = {
    "no schema": ({"tools": [{"name": "a"}]}, "tools.0.custom.input_schema: Field required"),
    "no type": (
        {"tools": [{"name": "a", "input_schema": {}}]},
        "tools.0.custom.input_schema.type: Field required",
    ),
    "array": (
        {"tools": [{"name": "a", "input_schema": {"type": "array"}}]},
        "input_schema.type: Input should be 'o",
    ),
    "root anyOf": (
        {"tools": [{"name": "a", "input_schema": {"type": "object", "anyOf": []}}]},
        "tools.0.custom.input_schema: input_schema does not support oneOf, allOf, or anyOf at the top level",
    ),
    "no JSON schema": (
        {"tools": [{"name": "a", "input_schema": {"type": "object", "properties": {"x": {"type": "text"}}}}]},
        "JSON schema is invalid",
    ),
    "name": ({"tools": [{**TOOL, "name": "a b"}]}, "tools.0.custom.name: String should match pattern"),
    "kind": ({"tools": [{**TOOL, "type": "function"}]}, "tools.0.function.type: Input is not one of"),
    "stray": (
        {"tools": [{**TOOL, "parameters": {}}]},
        "tools.0.custom.parameters: Extra inputs are not permitted",
    ),
    "twice": ({"tools": [TOOL, TOOL]}, "tools: Tool names must be unique."),
    "null": ({"tools": None}, "tools: Input should be a valid list"),
    "choice without tools": (
        {"tool_choice": {"type": "auto"}},
        "may only be specified while providing tools",
    ),
    "choice of nothing": (
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "x"}},
        "Tool 'x' not found",
    ),
    "none in sequence": (
        {"tools": [TOOL], "tool_choice": {"type": "none", "disable_parallel_tool_use": True}},
        "tool_choice.disable_parallel_tool_use: Extra inputs are not permitted",
    ),
    "choice as a word": ({"tools": [TOOL], "tool_choice": "auto"}, "tool_choice: Input should be an object"),
    "strict and open": (
        {"tools": [{**TOOL, "strict": True}]},
        "'additionalProperties' must be explicitly set to f",
    ),
    "too many strict": (
        {"tools": [{"name": f"t{n}", "strict": True, "input_schema": CLOSED} for n in range(21)]},
        "tools: at most 20 tools may be strict.",
    ),
    "history without tools": ({"messages": [user(), assistant([CALL]), user([RESULT])]}, "must define tools"),
}
SCHEMAS = {
    "open object": (
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        "set to f",
    ),
    "true": (shape(additionalProperties=True), "'additionalProperties: true' is not supported"),
    "inner open": (one({"type": "object"}), "'additionalProperties' must be explicitly set to false"),
    "minimum": (
        one({"type": "integer", "minimum": 1}),
        "For 'integer' type, property 'minimum' is not supported",
    ),
    "lengths": (
        one({"type": "string", "minLength": 1, "maxLength": 2}),
        "properties minLength, maxLength are not",
    ),
    "minItems": (
        one({"type": "array", "minItems": 2, "items": {"type": "null"}}),
        "'minItems' values other than",
    ),
    "maxItems": (
        one({"type": "array", "maxItems": 2}),
        "For 'array' type, property 'maxItems' is not supported",
    ),
    "format": (one({"type": "string", "format": "binary"}), "format 'binary' is not supported"),
    "pattern": (one({"type": "string", "pattern": "(?=x)"}), "this 'pattern' is too complex"),
    "oneOf": (one({"oneOf": [{"type": "null"}]}), "'oneOf' is not supported"),
    "no type": (one({"description": "anything"}), "Schema must have a 'type'"),
    "not a schema": (one(True), "Schema must be an object"),
    "object in enum": (one({"enum": [{}]}), "Only primitive values are supported"),
    "type": (one({"type": "text"}), "Unknown type: 'text'"),
    "required": (shape(required=["b"]), "required property 'b' is not in 'properties'"),
    "foreign $ref": (one({"$ref": "https://a.example/s"}), "is not a definition of this schema"),
    "recursion": (
        shape(
            properties={"a": {"$ref": "#/$defs/T"}},
            **{"$defs": {"T": {**CLOSED, "properties": {"t": {"$ref": "#/$defs/T"}}}}},
        ),
        "Circular reference detected in schema definitions: T",
    ),
    "25 optional": (
        shape(properties={f"p{n}": {"type": "null"} for n in range(25)}),
        "too many optional parameters",
    ),
    "17 unions": (
        shape(
            properties={f"p{n}": {"type": ["string", "null"]} for n in range(17)},
            required=[f"p{n}" for n in range(17)],
        ),
        "too many parameters with union types (17",
    ),
}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(body, words, id=f"{group} {name}")
        for group, table in (("tools:", TOOLS), ("schema:", SCHEMAS))
        for name, (body, words) in table.items()
    ],
)
def test_a_request_is_refused_in_anthropics_words(body, words):
    refused = refusal(body)

    assert words in refused.message
    assert (refused.status, refused.kind) in {(400, "invalid_request_error"), (404, "not_found_error")}
