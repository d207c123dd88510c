"""Tools, legacy functions, structured outputs: what is asked for arrives, or is refused where it is wrong."""

from collections.abc import Callable
from typing import Any

import pytest

from floopy_common.providers.anthropic.policy import Context, Policy
from floopy_common.providers.anthropic.request import Translated, translate

Params = Callable[..., dict[str, Any]]
Refusal = Callable[..., tuple[str | None, str | None]]

LENIENT = Context(policy=Policy(forced_tool_choice="auto"))
NAMED = {"type": "function", "function": {"name": "look"}}
OBJECT = {"type": "object", "properties": {}}
SCHEMA = "response_format.json_schema.schema"


def tool(name: str = "look", **members: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **members}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def formatted(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": schema}}


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
