"""Instances of JSON schemas."""

import jsonschema
import pytest

from floopy_simulator.schema import make_instance

SCHEMAS = {
    "empty": {},
    "enum": {"enum": [3, 4]},
    "const": {"const": {"a": 1}},
    "bounds": {"type": "integer", "minimum": 5, "maximum": 7, "multipleOf": 3},
    "exclusive": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "maximum": {"type": "integer", "maximum": -4},
    "length": {"type": "string", "minLength": 30, "maxLength": 31},
    "short": {"type": "string", "maxLength": 2},
    "date": {"type": "string", "format": "date-time"},
    "pattern": {"type": "string", "pattern": "^(yes|no)$"},
    "nullable": {"type": ["null", "string"]},
    "null": {"type": "null"},
    "array": {"type": "array", "items": {"type": "boolean"}, "minItems": 3},
    "nested": {
        "type": "object",
        "properties": {"a": {"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"]}},
        "required": ["a", "undeclared"],
    },
    "reference": {
        "$ref": "#/$defs/x",
        "$defs": {"x": {"type": "array", "items": {"$ref": "#/$defs/y"}}, "y": {"type": "string"}},
    },
    "all of": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"b": {"type": "string"}}, "required": ["b"]},
        ]
    },
    "any of": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    "recursive": {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["next"],
        "additionalProperties": False,
    },
}


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_an_instance_is_valid_for_its_schema(schema):
    jsonschema.validate(make_instance(schema, "some text"), schema)
