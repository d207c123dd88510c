"""Tools, tool choices and legacy functions: what is asked for arrives, or is refused where it is wrong."""

from collections.abc import Callable
from typing import Any

import pytest
from floopy_anthropic.tools import tool

from floopy_common.providers.anthropic.policy import Context, Policy
from floopy_common.providers.anthropic.request import Translated, translate

Params = Callable[..., dict[str, Any]]
Refusal = Callable[..., tuple[str | None, str | None]]

LENIENT = Context(policy=Policy(forced_tool_choice="auto"))
NAMED = {"type": "function", "function": {"name": "look"}}
OBJECT = {"type": "object", "properties": {}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def test_a_function_is_a_tool_with_its_parameters_as_they_are(params_of: Params) -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "number", "minimum": 1.0}}}

    params = params_of(tools=[tool(description="Looks.", parameters=parameters), tool("other")])

    assert params["tools"] == [
        {"name": "look", "description": "Looks.", "input_schema": parameters},
        {"name": "other", "input_schema": OBJECT},
    ]
    assert "tool_choice" not in params


def test_parameters_without_a_type_are_made_an_object(params_of: Params) -> None:
    [sent] = params_of(tools=[tool(parameters={"properties": {}})])["tools"]

    assert sent["input_schema"] == OBJECT


@pytest.mark.parametrize(
    ("tools", "param", "code"),
    [
        ([tool(), tool()], "tools[1].function.name", "invalid_value"),
        ([tool("a b")], "tools[0].function.name", "invalid_value"),
        ([tool("a" * 65)], "tools[0].function.name", "invalid_value"),
        ([tool(parameters=[])], "tools[0].function.parameters", "invalid_type"),
        ([tool(parameters={"type": "string"})], "tools[0].function.parameters", "invalid_value"),
        ([tool(parameters={"anyOf": []})], "tools[0].function.parameters", "invalid_value"),
        ([tool(parameters={"type": "object", "allOf": []})], "tools[0].function.parameters", "invalid_value"),
        ([{"type": "custom", "custom": {"name": "a"}}], "tools[0].type", "unsupported_value"),
        ([{"type": "web_search"}], "tools[0].type", "invalid_value"),
        ([{"function": {"name": "a"}}], "tools[0].type", "missing_required_parameter"),
        ([tool(foo=1)], "tools[0].function.foo", "unknown_parameter"),
        ([tool(f"t{n}", strict=True) for n in range(21)], "tools", "invalid_value"),
    ],
)
def test_a_tool_that_cannot_be_is_refused(refusal_of: Refusal, tools: Any, param: str, code: str) -> None:
    assert refusal_of(tools=tools) == (param, code)


def test_a_strict_tool_has_its_schema_transformed(params_of: Params) -> None:
    parameters = {
        "type": "object",
        "properties": {"a": {"type": "string", "maxLength": 3}},
        "required": ["a"],
    }

    [sent] = params_of(tools=[tool(strict=True, parameters=parameters)])["tools"]

    assert sent["strict"] is True
    assert sent["input_schema"]["additionalProperties"] is False
    assert sent["input_schema"]["properties"]["a"] == {"type": "string", "description": "{maxLength: 3}"}


@pytest.mark.edge(44)
@pytest.mark.parametrize("model", ["claude-sonnet-4-6", "claude-opus-5"])
@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        (NAMED, {"type": "tool", "name": "look"}),
    ],
)
def test_a_tool_choice_is_sent_where_the_model_takes_it(
    params_of: Params, model: str, choice: Any, sent: Any
) -> None:
    params = params_of(model=model, tools=[tool()], tool_choice=choice)

    assert params["tool_choice"] == sent
    assert [one["name"] for one in params["tools"]] == ["look"]


@pytest.mark.edge(44)
@pytest.mark.parametrize("choice", ["required", NAMED, allowed("required", "look")])
def test_a_demanded_call_is_refused_or_by_policy_left_to_the_model(
    make_body: Callable[..., bytes], params_of: Params, refusal_of: Refusal, choice: Any
) -> None:
    asked = {"model": "claude-opus-5-5", "tools": [tool()], "tool_choice": choice}

    assert refusal_of(**asked) == ("tool_choice", "unsupported_value")
    assert params_of(LENIENT, **asked)["tool_choice"] == {"type": "auto"}
    outcome = translate(make_body(**asked), LENIENT)
    assert isinstance(outcome, Translated)
    assert outcome.notes


@pytest.mark.edge(44)
@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_demanded_call_goes_before_thinking_on_a_budget(params_of: Params, choice: Any) -> None:
    params = params_of(tools=[tool()], tool_choice=choice, reasoning_effort="high")

    assert "thinking" not in params
    assert params["tool_choice"]["type"] in {"any", "tool"}


@pytest.mark.edge(44)
def test_calls_in_the_history_go_before_thinking_on_a_budget(params_of: Params) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": ""}}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "a"},
    ]

    assert "thinking" not in params_of(messages=messages, tools=[tool()], reasoning_effort="high")


@pytest.mark.edge(44)
@pytest.mark.parametrize(
    ("choice", "code"),
    [
        ({"type": "function", "function": {"name": "other"}}, "invalid_value"),
        (allowed("auto", "other"), "invalid_value"),
        (allowed("auto"), "invalid_value"),
        ({"type": "custom", "custom": {"name": "look"}}, "unsupported_value"),
        ("sometimes", "invalid_value"),
        (1, "invalid_type"),
    ],
)
def test_a_choice_of_no_tool_is_refused(refusal_of: Refusal, choice: Any, code: str) -> None:
    param, found = refusal_of(tools=[tool()], tool_choice=choice)

    assert (param or "").startswith("tool_choice")
    assert found == code


@pytest.mark.edge(44)
@pytest.mark.parametrize("tools", [{}, {"tools": []}, {"tools": None}])
@pytest.mark.parametrize("choice", ["auto", "none", "required", NAMED])
def test_a_choice_without_tools_is_refused(refusal_of: Refusal, tools: Any, choice: Any) -> None:
    assert refusal_of(tool_choice=choice, **tools) == ("tool_choice", "invalid_value")


@pytest.mark.edge(44)
@pytest.mark.parametrize(("mode", "sent"), [("auto", "auto"), ("required", "any")])
def test_of_allowed_tools_only_those_are_sent(params_of: Params, mode: str, sent: str) -> None:
    params = params_of(tools=[tool("a"), tool("b"), tool("c")], tool_choice=allowed(mode, "c", "a"))

    assert [one["name"] for one in params["tools"]] == ["a", "c"]
    assert params["tool_choice"] == {"type": sent}


@pytest.mark.edge(45)
@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (None, {"type": "auto", "disable_parallel_tool_use": True}),
        ("auto", {"type": "auto", "disable_parallel_tool_use": True}),
        ("required", {"type": "any", "disable_parallel_tool_use": True}),
        (NAMED, {"type": "tool", "name": "look", "disable_parallel_tool_use": True}),
        ("none", {"type": "none"}),
    ],
)
def test_one_call_at_a_time_is_part_of_the_choice(params_of: Params, choice: Any, sent: Any) -> None:
    params = params_of(tools=[tool()], tool_choice=choice, parallel_tool_calls=False)

    assert params["tool_choice"] == sent


@pytest.mark.edge(45)
def test_one_call_at_a_time_survives_when_a_demand_does_not(params_of: Params) -> None:
    asked = {"tools": [tool()], "tool_choice": "required", "parallel_tool_calls": False}

    params = params_of(LENIENT, model="claude-opus-5-5", **asked)

    assert params["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}


@pytest.mark.edge(31)
@pytest.mark.parametrize(
    ("function_call", "sent"),
    [
        (None, {"type": "auto", "disable_parallel_tool_use": True}),
        ("auto", {"type": "auto", "disable_parallel_tool_use": True}),
        ("none", {"type": "none"}),
        ({"name": "look"}, {"type": "tool", "name": "look", "disable_parallel_tool_use": True}),
    ],
)
def test_legacy_functions_are_tools_called_one_at_a_time(
    params_of: Params, function_call: Any, sent: Any
) -> None:
    params = params_of(functions=[{"name": "look", "parameters": OBJECT}], function_call=function_call)

    assert params["tools"] == [{"name": "look", "input_schema": OBJECT}]
    assert params["tool_choice"] == sent


@pytest.mark.edge(31)
@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"functions": [{"name": "a"}], "tools": [tool()]}, "functions"),
        ({"functions": [{"name": "a"}], "tool_choice": "auto"}, "tool_choice"),
        ({"functions": [{"name": "a"}], "function_call": {"name": "b"}}, "function_call"),
        ({"functions": [{"name": "a"}, {"name": "a"}]}, "functions[1].name"),
        ({"function_call": "auto"}, "function_call"),
    ],
)
def test_legacy_functions_that_contradict_are_refused(
    refusal_of: Refusal, members: dict[str, Any], param: str
) -> None:
    assert refusal_of(**members) == (param, "invalid_value")
