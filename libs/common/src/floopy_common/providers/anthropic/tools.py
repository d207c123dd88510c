"""Tools, legacy functions, and which of them the model may or must call."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from floopy_common.providers.anthropic import refusal
from floopy_common.providers.anthropic.capabilities import Capabilities
from floopy_common.providers.anthropic.chat import (
    AllowedChoice,
    CustomChoice,
    CustomTool,
    Function,
    FunctionTool,
    Named,
    NamedChoice,
)
from floopy_common.providers.anthropic.policy import Judge
from floopy_common.providers.anthropic.schema import (
    EMPTY_OBJECT,
    MAX_STRICT_TOOLS,
    Allowance,
    plain_input_schema,
    strict_input_schema,
)
from floopy_common.providers.anthropic.wire import ToolChoice, ToolDefinition

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")

Mode = Literal["auto", "none", "required"]
Choice = Mode | NamedChoice | CustomChoice | AllowedChoice


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a request says about tools; None is what it does not say."""

    tools: Sequence[FunctionTool | CustomTool] | None = None
    tool_choice: Choice | None = None
    parallel: bool | None = None
    functions: Sequence[Function] | None = None
    function_call: Literal["auto", "none"] | Named | None = None


@dataclass(frozen=True)
class Toolbox:
    """What is sent about tools."""

    tools: list[ToolDefinition] | None = None
    choice: ToolChoice | None = None

    @property
    def is_forced(self) -> bool:
        return self.choice is not None and self.choice.type in {"any", "tool"}


def toolbox(
    asked: Asked, called: Iterable[str], capabilities: Capabilities, allowance: Allowance, judge: Judge
) -> Toolbox:
    """`called`: tools in the history, which Anthropic wants defined even where none may be called again."""
    if asked.functions and asked.tools:
        raise refusal.invalid_value("functions", "it cannot be given together with 'tools'.")
    if asked.functions:
        made = _functions(asked, allowance)
    elif asked.tools:
        made = _tools(asked, capabilities, allowance)
    else:
        return _without_tools(asked, called)
    if made.is_forced and capabilities.forced_tools == "no":
        return _unforced(made, asked, judge)
    return made


def _without_tools(asked: Asked, called: Iterable[str]) -> Toolbox:
    for name, value in (("tool_choice", asked.tool_choice), ("function_call", asked.function_call)):
        if value is not None:
            raise refusal.invalid_value(name, "it is only allowed when tools are given.")
    tools = [ToolDefinition(name=name, input_schema=EMPTY_OBJECT) for name in called]
    return Toolbox(tools, ToolChoice("none")) if tools else Toolbox()


def _tools(asked: Asked, capabilities: Capabilities, allowance: Allowance) -> Toolbox:
    tools: list[ToolDefinition] = []
    for number, tool in enumerate(asked.tools or ()):
        if isinstance(tool, CustomTool):
            why = "does not support 'custom' with this model."
            raise refusal.unsupported_value(f"tools[{number}].type", why)
        strict = bool(tool.function.strict)
        if strict and not capabilities.structured_outputs:
            why = "does not support true with this model."
            raise refusal.unsupported_value(f"tools[{number}].function.strict", why)
        tools.append(_definition(tool.function, f"tools[{number}].function", allowance, strict=strict))
    _check_names(tools, "tools[{}].function.name")
    if sum(tool.strict is True for tool in tools) > MAX_STRICT_TOOLS:
        raise refusal.invalid_value("tools", f"more than {MAX_STRICT_TOOLS} strict tools.")
    tools, choice = _chosen(asked.tool_choice, tools)
    if asked.parallel is False:
        choice = choice or ToolChoice("auto")
        if choice.type != "none":
            choice.disable_parallel_tool_use = True
    return Toolbox(tools, choice)


def _functions(asked: Asked, allowance: Allowance) -> Toolbox:
    tools = [
        _definition(function, f"functions[{number}]", allowance, strict=False)
        for number, function in enumerate(asked.functions or ())
    ]
    _check_names(tools, "functions[{}].name")
    if asked.tool_choice is not None:
        raise refusal.invalid_value("tool_choice", "it is only allowed when 'tools' are given.")
    if asked.function_call == "none":
        return Toolbox(tools, ToolChoice("none"))
    choice = ToolChoice("auto", disable_parallel_tool_use=True)
    if isinstance(asked.function_call, Named):
        choice.type, choice.name = "tool", asked.function_call.name
        _check_known(asked.function_call.name, tools, "function_call")
    return Toolbox(tools, choice)


def _definition(function: Function, param: str, allowance: Allowance, *, strict: bool) -> ToolDefinition:
    if not _NAME.fullmatch(function.name):
        raise refusal.invalid_value(f"{param}.name", "a name is 1 to 64 letters, digits, '_' and '-'.")
    raw, at = bytes(function.parameters), f"{param}.parameters"
    schema = allowance.take(strict_input_schema(raw, at), at) if strict else plain_input_schema(raw, at)
    return ToolDefinition(
        name=function.name,
        description=function.description or None,
        input_schema=schema,
        strict=True if strict else None,
    )


def _check_names(tools: Sequence[ToolDefinition], param: str) -> None:
    seen: set[str] = set()
    for number, tool in enumerate(tools):
        if tool.name in seen:
            raise refusal.invalid_value(param.format(number), f"the name '{tool.name}' is used twice.")
        seen.add(tool.name)


def _check_known(name: str, tools: Sequence[ToolDefinition], param: str) -> None:
    if all(tool.name != name for tool in tools):
        raise refusal.invalid_value(param, f"no tool '{name}' is given.")


def _chosen(
    choice: Choice | None, tools: list[ToolDefinition]
) -> tuple[list[ToolDefinition], ToolChoice | None]:
    match choice:
        case None:
            return tools, None
        case CustomChoice():
            raise refusal.unsupported_value("tool_choice", "does not support 'custom' with this model.")
        case NamedChoice():
            _check_known(choice.function.name, tools, "tool_choice")
            return tools, ToolChoice("tool", choice.function.name)
        case AllowedChoice():
            return _allowed(choice, tools), _of_mode(choice.allowed_tools.mode)
        case _:
            return tools, _of_mode(choice)


def _of_mode(mode: Mode) -> ToolChoice:
    return ToolChoice("any" if mode == "required" else mode)


def _allowed(choice: AllowedChoice, tools: Sequence[ToolDefinition]) -> list[ToolDefinition]:
    """The listed tools, in the order in which they are defined."""
    names: set[str] = set()
    for entry in choice.allowed_tools.tools:
        if isinstance(entry, CustomChoice):
            raise refusal.unsupported_value("tool_choice", "does not support 'custom' with this model.")
        _check_known(entry.function.name, tools, "tool_choice")
        names.add(entry.function.name)
    if not names:
        raise refusal.invalid_value("tool_choice", "no tool is allowed.")
    return [tool for tool in tools if tool.name in names]


def _unforced(made: Toolbox, asked: Asked, judge: Judge) -> Toolbox:
    param = "function_call" if asked.functions else "tool_choice"
    if judge.policy.forced_tool_choice == "reject":
        why = "does not support demanding a tool call with this model. Only 'auto' and 'none' are supported."
        raise refusal.unsupported_value(param, why)
    judge.note(f"{param}: the model may choose, it refuses demanded calls")
    parallel = None if made.choice is None else made.choice.disable_parallel_tool_use
    return Toolbox(made.tools, ToolChoice("auto", disable_parallel_tool_use=parallel))
