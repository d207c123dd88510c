"""The rules of tool definitions and of the choice between them."""

from typing import Any

import msgspec

from floopy_simulator.anthropic.errors import invalid
from floopy_simulator.anthropic.message_request import MessageRequest, NamedChoice, Tool
from floopy_simulator.anthropic.output_schema import check_output_schema

MAX_STRICT_TOOLS = 20
TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})
COMBINATIONS = ("anyOf", "oneOf", "allOf")


def check_tools(request: MessageRequest) -> None:
    names = [tool.name for tool in request.tools]
    if len(set(names)) != len(names):
        raise invalid("tools: Tool names must be unique.")
    for number, tool in enumerate(request.tools):
        _check_schema(tool, f"tools.{number}.custom.input_schema")
    if sum(tool.strict for tool in request.tools) > MAX_STRICT_TOOLS:
        raise invalid(f"tools: at most {MAX_STRICT_TOOLS} tools may be strict.")
    _check_choice(request, names)


def _check_choice(request: MessageRequest, names: list[str]) -> None:
    choice = request.tool_choice
    if isinstance(choice, msgspec.UnsetType):
        return
    if not names:
        raise invalid("tool_choice: tool_choice may only be specified while providing tools.")
    if isinstance(choice, NamedChoice) and choice.name not in names:
        raise invalid(f"tool_choice.name: Tool '{choice.name}' not found in provided tools")


def _check_schema(tool: Tool, path: str) -> None:
    schema = tool.input_schema
    if "type" not in schema:
        raise invalid(f"{path}.type: Field required")
    if schema["type"] != "object":
        raise invalid(f"{path}.type: Input should be 'object'")
    if any(name in schema for name in COMBINATIONS):
        raise invalid(f"{path}: input_schema does not support oneOf, allOf, or anyOf at the top level")
    if not _is_schema(schema):
        raise invalid(f"{path}: JSON schema is invalid. It must match JSON Schema draft 2020-12")
    if tool.strict:
        check_output_schema(schema, path)


def _is_schema(schema: Any) -> bool:  # JSON may hold anything
    """The mistakes that are made in practice, not the whole of draft 2020-12."""
    if isinstance(schema, bool):
        return True
    if not isinstance(schema, dict):
        return False
    kinds = schema.get("type", [])
    named = kinds if isinstance(kinds, list) else [kinds]
    required = schema.get("required", [])
    inner = [schema[name] for name in ("items", "not", "additionalProperties") if name in schema]
    for name in COMBINATIONS:
        inner.extend(schema.get(name, []))
    for name in ("properties", "$defs"):
        if not isinstance(schema.get(name, {}), dict):
            return False
        inner.extend(schema.get(name, {}).values())
    return (
        all(isinstance(kind, str) and kind in TYPES for kind in named)
        and isinstance(required, list)
        and all(isinstance(name, str) for name in required)
        and all(map(_is_schema, inner))
    )
