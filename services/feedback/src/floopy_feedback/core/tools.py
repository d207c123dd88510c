"""Whether tool calls are ones the request allows, with arguments their schemas allow."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from floopy_feedback.core.checks import OK, Check, Checks
from floopy_feedback.core.exchange import FunctionCall, Message, Request, ToolChoice
from floopy_feedback.core.json_text import NotJson, decode
from floopy_feedback.core.schema_cost import SchemaUnusable
from floopy_feedback.core.schemas import LineSchemas

_UNKNOWN: Final = Check(False, "not a tool of the request")
_NO_OBJECT: Final = Check(False, "arguments are not an object")
_NOT_CALLED: Final = Check(False, "no tool was called")
_CALLED: Final = Check(False, "a tool was called")
_ANOTHER: Final = Check(False, "another tool was called")


@dataclass(frozen=True)
class _Call:
    """One tool call; `arguments` is None where it has none to validate (custom tools take any text)."""

    name: str
    arguments: str | None


def check_tools(request: Request, message: Message, schemas: LineSchemas) -> Checks:
    """`tool_name` and `tool_arguments` where a tool was called, `tool_choice` where one was forced."""
    if not (message.tool_calls or message.function_call or request.tools or request.functions):
        return {}
    calls = _calls(message)
    checks: dict[str, Check] = {}
    if (choice := _check_choice(request, message, calls)) is not None:
        checks["tool_choice"] = choice
    if calls:
        tools = _tools(request)
        checks["tool_name"] = OK if all(call.name in tools for call in calls) else _UNKNOWN
        checks.update(_check_arguments(calls, tools, schemas))
    return checks


def _calls(message: Message) -> list[_Call]:
    calls = [_function(message.function_call)] if message.function_call else []
    for call in message.tool_calls or ():
        if call.custom is not None:
            calls.append(_Call(call.custom.name or "", None))
        else:
            calls.append(_function(call.function or FunctionCall()))
    return calls


def _function(call: FunctionCall) -> _Call:
    # a function without parameters is often called with no text at all
    return _Call(call.name or "", call.arguments or "{}")


def _tools(request: Request) -> Mapping[str, msgspec.Raw | None]:
    """Name and parameters' schema of everything the request lets the model call."""
    tools: dict[str, msgspec.Raw | None] = {}
    for tool in request.tools or ():
        if tool.function is not None and tool.function.name is not None:
            tools[tool.function.name] = tool.function.parameters
        elif tool.custom is not None and tool.custom.name is not None:
            tools[tool.custom.name] = None
    for function in request.functions or ():
        if function.name is not None:
            tools[function.name] = function.parameters
    return tools


def _check_arguments(
    calls: list[_Call], tools: Mapping[str, msgspec.Raw | None], schemas: LineSchemas
) -> Checks:
    """Every call's arguments parse and fit; the first that do not give the detail."""
    unusable: str | None = None
    verdict = OK
    for call in calls:
        if call.arguments is None:
            continue
        try:
            check = _check_call(call.arguments, tools.get(call.name), schemas)
        except SchemaUnusable as error:
            unusable = unusable or error.args[0]
            continue
        if verdict.ok and not check.ok:
            verdict = check
    checks = {"tool_arguments": verdict}
    if unusable is not None:
        checks["schema_unusable"] = Check(False, unusable)
    return checks


def _check_call(arguments: str, schema: msgspec.Raw | None, schemas: LineSchemas) -> Check:
    try:
        value = decode(arguments)
    except NotJson as error:
        return Check(False, f"arguments are {error.args[0]}")
    if not isinstance(value, dict):
        return _NO_OBJECT
    raw = bytes(schema) if schema is not None else b""
    if not raw or raw == b"null":
        return OK
    return schemas.check(raw, value, arguments)


def _check_choice(request: Request, message: Message, calls: list[_Call]) -> Check | None:
    """None where the request leaves the choice to the model, or the model refused to make one."""
    choice = request.tool_choice if request.tool_choice is not None else request.function_call
    if choice is None or choice == "auto" or message.refuses():
        return None
    if choice == "none":
        return _CALLED if calls else OK
    if isinstance(choice, str):
        return None if choice != "required" else (OK if calls else _NOT_CALLED)
    return _check_named(choice, calls)


def _check_named(choice: ToolChoice, calls: list[_Call]) -> Check | None:
    allowed = _named(choice)
    if not allowed:
        return None
    if not calls:
        optional = choice.allowed_tools is not None and choice.allowed_tools.mode != "required"
        return OK if optional else _NOT_CALLED
    return OK if all(call.name in allowed for call in calls) else _ANOTHER


def _named(choice: ToolChoice) -> set[str | None]:
    """The names a choice permits; empty for a choice of a kind that scoring does not know."""
    if choice.allowed_tools is not None:
        tools = choice.allowed_tools.tools or ()
        return {name.name for tool in tools if (name := tool.function or tool.custom) is not None}
    named = choice.function or choice.custom
    if named is not None:
        return {named.name}
    return {choice.name} if choice.name is not None else set()
