"""Whether an answer that had to be JSON is, and fits the schema that came with the request."""

from typing import Any, Final

from floopy_feedback.core.checks import OK, Check, Checks
from floopy_feedback.core.exchange import Message, ResponseFormat
from floopy_feedback.core.json_text import NotJson, decode
from floopy_feedback.core.schema_cost import SchemaUnusable
from floopy_feedback.core.schemas import LineSchemas

_JSON_TYPES: Final = frozenset({"json_object", "json_schema"})
_NO_SCHEMA: Final = (b"", b"null")
_NO_OBJECT: Final = Check(False, "not an object")


def wants_json(response_format: ResponseFormat | None) -> bool:
    return response_format is not None and response_format.type in _JSON_TYPES


def check_json(
    response_format: ResponseFormat | None, message: Message, text: str, schemas: LineSchemas
) -> Checks:
    """No check at all where no JSON was asked for, or a tool was called or the model refused instead."""
    elsewhere = message.tool_calls or message.function_call or message.refuses()
    if response_format is None or not wants_json(response_format) or elsewhere:
        return {}
    try:
        value = decode(text)
    except NotJson as error:
        return {"json": Check(False, error.args[0])}
    if response_format.type == "json_object":
        return {"json": OK if isinstance(value, dict) else _NO_OBJECT}
    schema = response_format.json_schema
    raw = bytes(schema.schema) if schema is not None else b""
    return {"json": OK} if raw in _NO_SCHEMA else _check_schema(raw, value, text, schemas)


def _check_schema(raw: bytes, value: Any, text: str, schemas: LineSchemas) -> Checks:
    try:
        return {"json": OK, "schema": schemas.check(raw, value, text)}
    except SchemaUnusable as error:
        return {"json": OK, "schema_unusable": Check(False, error.args[0])}
