"""Conversations: where every message of the OpenAI shape ends up, and which cannot be had."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from floopy_common.providers.anthropic.messages import MAX_MESSAGES
from floopy_common.providers.anthropic.policy import Context
from floopy_common.providers.anthropic.refusal import Refused
from floopy_common.providers.anthropic.request import translate

Params = Callable[..., dict[str, Any]]
Refusal = Callable[..., tuple[str | None, str | None]]

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Yes?"}
MID_SYSTEM = "claude-opus-4-8"


def text(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


def call(call_id: str, name: str = "look", arguments: str = "{}") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **more}


def result(call_id: str, content: Any = "42") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def said(content: str, role: str = "system") -> dict[str, str]:
    return {"role": role, "content": content}


@pytest.mark.edge(22)
def test_leading_system_and_developer_messages_are_the_system_prompt_in_order(params_of: Params) -> None:
    parts = {"role": "developer", "content": [*text("b"), *text(" "), *text("c")]}

    params = params_of(messages=[said("a"), parts, said(""), USER])

    assert params["system"] == text("a", "b", "c")
    assert params["messages"] == [{"role": "user", "content": text("Hi")}]


@pytest.mark.edge(22)
@pytest.mark.parametrize("role", ["system", "developer"])
@pytest.mark.parametrize("after", [[], [ANSWER, USER]])
def test_a_system_message_after_a_user_turn_stays_where_the_model_takes_it(
    params_of: Params, role: str, after: list[Any]
) -> None:
    params = params_of(model=MID_SYSTEM, messages=[said("a"), USER, said("b", role), *after])

    assert params["system"] == text("a")
    assert params["messages"][1] == {"role": "system", "content": text("b")}


@pytest.mark.edge(22)
def test_consecutive_system_messages_inside_a_conversation_stay(params_of: Params) -> None:
    params = params_of(model=MID_SYSTEM, messages=[USER, said("b"), said("c"), ANSWER, USER])

    assert [turn["role"] for turn in params["messages"]] == ["user", "system", "system", "assistant", "user"]


@pytest.mark.edge(22)
@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_system_message_the_model_does_not_take_inside_ends_the_system_prompt(
    params_of: Params, role: str
) -> None:
    params = params_of(messages=[said("a"), USER, said("b", role), ANSWER, USER])

    assert params["system"] == text("a", "b")
    assert [turn["role"] for turn in params["messages"]] == ["user", "assistant", "user"]


@pytest.mark.edge(22)
@pytest.mark.parametrize(
    "messages",
    [
        [USER, ANSWER, said("b"), USER],
        [USER, ANSWER, said("b"), ANSWER, USER],
        [USER, said("b"), USER],
        [USER, calling(call("1")), said("b"), result("1")],
        [USER, calling(call("1"), call("2")), result("1"), said("b"), result("2")],
    ],
    ids=["after an answer", "between answers", "between user messages", "before a result", "between results"],
)
def test_a_system_message_in_an_illegal_place_ends_the_system_prompt(
    params_of: Params, messages: list[Any]
) -> None:
    params = params_of(model=MID_SYSTEM, messages=messages)

    assert params["system"] == text("b")
    assert "system" not in [turn["role"] for turn in params["messages"]]


@pytest.mark.edge(22)
def test_a_system_message_behind_tool_results_stays(params_of: Params) -> None:
    params = params_of(model=MID_SYSTEM, messages=[USER, calling(call("1")), result("1"), said("b")])

    assert params["messages"][-1] == {"role": "system", "content": text("b")}


@pytest.mark.edge(23)
@pytest.mark.parametrize("messages", [[said("a")], [said("a"), said("b", "developer")], []])
def test_only_system_messages_are_refused(refusal_of: Refusal, messages: list[Any]) -> None:
    assert refusal_of(messages=messages) == ("messages", "invalid_value")


@pytest.mark.edge(24)
@pytest.mark.parametrize("content", ["", " \n\t", [], text(""), text(" ", "\n")])
def test_a_message_without_text_is_left_out(params_of: Params, refusal_of: Refusal, content: Any) -> None:
    empty = {"role": "user", "content": content}

    assert params_of(messages=[empty, USER])["messages"] == [{"role": "user", "content": text("Hi")}]
    assert refusal_of(messages=[empty]) == ("messages", "invalid_value")


@pytest.mark.edge(24)
def test_blank_text_beside_an_image_is_left_out(params_of: Params) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}}

    params = params_of(messages=[{"role": "user", "content": [*text(" \n"), image]}])

    assert params["messages"][0]["content"] == [
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    ]


def test_messages_of_one_role_become_one_turn_without_a_separator(params_of: Params) -> None:
    params = params_of(messages=[USER, said("a", "user"), ANSWER, said("b", "assistant"), USER])

    assert params["messages"] == [
        {"role": "user", "content": text("Hi", "a")},
        {"role": "assistant", "content": text("Yes?", "b")},
        {"role": "user", "content": text("Hi")},
    ]


@pytest.mark.edge(25)
@pytest.mark.parametrize("content", [{"content": None}, {"content": ""}, {"content": []}, {}])
def test_an_assistant_without_text_has_only_its_calls(params_of: Params, content: dict[str, Any]) -> None:
    message = {"role": "assistant", "tool_calls": [call("1")], **content}

    turn = params_of(messages=[USER, message, result("1")])["messages"][1]

    assert turn["content"] == [{"type": "tool_use", "id": "1", "name": "look", "input": {}}]


@pytest.mark.edge(25)
def test_text_comes_before_the_calls_of_its_message(params_of: Params) -> None:
    turn = params_of(messages=[USER, calling(call("1"), content="So"), result("1")])["messages"][1]

    assert [block["type"] for block in turn["content"]] == ["text", "tool_use"]


@pytest.mark.edge(26)
def test_results_in_another_order_and_the_text_behind_them_are_one_turn_results_first(
    params_of: Params,
) -> None:
    params = params_of(messages=[USER, calling(call("a"), call("b")), result("b"), result("a", "1"), USER])

    assert params["messages"][2] == {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "b", "content": text("42")},
            {"type": "tool_result", "tool_use_id": "a", "content": text("1")},
            *text("Hi"),
        ],
    }


def test_an_empty_result_has_no_content(params_of: Params) -> None:
    params = params_of(messages=[USER, calling(call("a")), result("a", "")])

    assert params["messages"][2]["content"] == [{"type": "tool_result", "tool_use_id": "a"}]


@pytest.mark.edge(27)
@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([USER, calling(call("a"))], "messages"),
        ([USER, calling(call("a"), call("b")), result("a")], "messages"),
        ([USER, calling(call("a")), USER], "messages[2]"),
        ([USER, calling(call("a")), ANSWER], "messages[2]"),
        ([USER, result("a")], "messages[1].tool_call_id"),
        ([USER, calling(call("a")), result("a"), result("a")], "messages[3].tool_call_id"),
        ([USER, calling(call("a")), result("b")], "messages[2].tool_call_id"),
        (
            [USER, calling(call("a")), result("a"), USER, calling(call("a")), result("a")],
            "messages[4].tool_calls[0].id",
        ),
    ],
    ids=["none", "one of two", "user first", "assistant first", "orphan", "twice", "other id", "id reused"],
)
def test_a_call_without_its_result_or_a_result_without_its_call_is_refused(
    refusal_of: Refusal, messages: list[Any], param: str
) -> None:
    assert refusal_of(messages=messages) == (param, "invalid_value")


@pytest.mark.edge(28)
@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ("", b"{}"),
        ("{}", b"{}"),
        (' { "a" : [ 1.0 , 1 ] } ', b'{"a":[1.0,1]}'),
        ('{"n":123456789012345678901234567890}', b'{"n":123456789012345678901234567890}'),
        ('{"n":1e400,"m":-0}', b'{"n":1e400,"m":-0}'),
        ('{"a":1,"b":2,"a":3}', b'{"a":3,"b":2}'),
        ('{"a":{"b":1,"b":2}}', b'{"a":{"b":2}}'),
        ('{"a":"\\u00e9"}', '{"a":"é"}'.encode()),
    ],
)
def test_arguments_are_an_object_whose_numbers_stay_and_whose_last_key_counts(
    make_body: Callable[..., bytes], arguments: str, sent: bytes
) -> None:
    messages = [USER, calling(call("a", arguments=arguments)), result("a")]

    outcome = translate(make_body(messages=messages), Context())

    assert not isinstance(outcome, Refused)
    assert b'"input":%b}' % sent in outcome.params


@pytest.mark.edge(28)
@pytest.mark.parametrize(
    "arguments",
    ["null", "[1]", "1", '"a"', "{", "{'a':1}", '{"a":NaN}', '{"a":"\\ud800"}', "[" * 5000],
)
def test_arguments_that_are_no_object_are_refused(refusal_of: Refusal, arguments: str) -> None:
    found = refusal_of(messages=[USER, calling(call("a", arguments=arguments)), result("a")])

    assert found == ("messages[1].tool_calls[0].function.arguments", "invalid_value")


@pytest.mark.edge(29)
def test_an_id_that_anthropic_does_not_take_is_renamed_in_call_and_result_alike(params_of: Params) -> None:
    messages = [USER, calling(call("call:1"), call("call:2"), call("ok-1_A")), *map(result, ["call:2"])]
    messages += [result("call:1"), result("ok-1_A")]

    first, again = params_of(messages=messages), params_of(messages=messages)

    calls = [block["id"] for block in first["messages"][1]["content"]]
    results = [block["tool_use_id"] for block in first["messages"][2]["content"]]
    assert results == [calls[1], calls[0], "ok-1_A"]
    assert len(set(calls)) == 3
    assert all(name.replace("_", "").isalnum() for name in calls[:2])
    assert first == again


@pytest.mark.edge(30)
@pytest.mark.parametrize("tools", [{}, {"tools": []}, {"tools": None}])
def test_a_history_of_calls_gets_its_tools_defined_and_none_may_be_called(
    params_of: Params, tools: dict[str, Any]
) -> None:
    messages = [USER, calling(call("a", "one"), call("b", "two"), call("c", "one"))]
    messages += map(result, "abc")

    params = params_of(messages=messages, **tools)

    schema = {"type": "object", "properties": {}}
    assert params["tools"] == [{"name": name, "input_schema": schema} for name in ("one", "two")]
    assert params["tool_choice"] == {"type": "none"}


@pytest.mark.edge(31)
def test_legacy_calls_are_paired_in_order_under_ids_of_ours(params_of: Params) -> None:
    called = {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": '{"a":1}'}}
    answer = {"role": "function", "name": "look", "content": "42"}

    params = params_of(messages=[USER, called, answer, called, answer], functions=[{"name": "look"}])

    turns = params["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "assistant", "user"]
    assert [turns[at]["content"][0]["id"] for at in (1, 3)] == ["fc_0", "fc_1"]
    assert [turns[at]["content"][0]["tool_use_id"] for at in (2, 4)] == ["fc_0", "fc_1"]


@pytest.mark.edge(31)
def test_a_legacy_id_never_meets_a_tool_calls_id(params_of: Params) -> None:
    called = {"role": "assistant", "function_call": {"name": "look", "arguments": ""}}
    messages = [USER, calling(call("fc_0")), result("fc_0"), called]
    messages.append({"role": "function", "name": "look", "content": None})

    assert params_of(messages=messages)["messages"][3]["content"][0]["id"] == "fc_1"


@pytest.mark.edge(31)
@pytest.mark.parametrize("name", ["other", "look"])
def test_a_legacy_result_of_no_call_is_refused(refusal_of: Refusal, name: str) -> None:
    before = (
        [] if name == "look" else [{"role": "assistant", "function_call": {"name": "look", "arguments": ""}}]
    )
    messages = [USER, *before, {"role": "function", "name": name, "content": "1"}]

    assert refusal_of(messages=messages)[0] == f"messages[{len(messages) - 1}].name"


@pytest.mark.edge(32)
@pytest.mark.parametrize("after", [[], [said("a")], [said("", "user")]])
def test_a_conversation_that_ends_with_the_assistant_is_refused(
    refusal_of: Refusal, after: list[Any]
) -> None:
    for model in ("claude-haiku-4-5", MID_SYSTEM):
        assert refusal_of(model=model, messages=[USER, ANSWER, *after]) == ("messages", "unsupported_value")


@pytest.mark.edge(33)
@pytest.mark.parametrize("before", [[], [said("a")]])
def test_a_conversation_that_starts_with_the_assistant_is_refused(
    refusal_of: Refusal, before: list[Any]
) -> None:
    assert refusal_of(messages=[*before, ANSWER, USER]) == ("messages", "unsupported_value")


@pytest.mark.edge(34)
@pytest.mark.parametrize(
    "message",
    [
        {"content": [{"type": "refusal", "refusal": "No."}]},
        {"content": None, "refusal": "No."},
        {"content": "", "refusal": "No."},
    ],
)
def test_a_refusal_in_the_history_is_text(params_of: Params, message: dict[str, Any]) -> None:
    params = params_of(messages=[USER, {"role": "assistant", **message}, USER])

    assert params["messages"][1] == {"role": "assistant", "content": text("No.")}


@pytest.mark.parametrize(
    ("messages", "param", "code"),
    [
        ([{"role": "robot", "content": "a"}], "messages[0].role", "invalid_value"),
        ([{"content": "a"}], "messages[0].role", "missing_required_parameter"),
        ([{"role": "user"}], "messages[0].content", "missing_required_parameter"),
        ([{"role": "user", "content": 1}], "messages[0].content", "invalid_type"),
        ([USER, {"role": "user", "content": "a", "foo": 1}], "messages[1].foo", "unknown_parameter"),
        ([{"role": "user", "content": [{"type": "video"}]}], "messages[0].content[0].type", "invalid_value"),
        ([USER, {**ANSWER, "audio": {"id": "a"}}, USER], "messages[1].audio", "unsupported_value"),
        (
            [USER, calling({"id": "1", "type": "custom", "custom": {"name": "a", "input": "b"}})],
            "messages[1].tool_calls[0].type",
            "unsupported_value",
        ),
        (
            [USER, calling(call("1", "a b")), result("1")],
            "messages[1].tool_calls[0].function.name",
            "invalid_value",
        ),
        ("Hi", "messages", "invalid_type"),
    ],
)
def test_a_message_of_another_shape_is_refused_where_it_is_wrong(
    refusal_of: Refusal, messages: Any, param: str, code: str
) -> None:
    assert refusal_of(messages=messages) == (param, code)


def test_what_answers_carry_along_is_no_obstacle(params_of: Params) -> None:
    answered = {"refusal": None, "annotations": [], "audio": None, "function_call": None, "tool_calls": None}
    user = {"name": "Ann", "tool_calls": None, "tool_call_id": None, **USER}

    params = params_of(messages=[user, {**ANSWER, **answered}, USER])

    assert "Ann" not in json.dumps(params)


def test_more_messages_than_anthropic_takes_are_refused(refusal_of: Refusal) -> None:
    assert refusal_of(messages=[USER] * (MAX_MESSAGES + 1)) == ("messages", "invalid_value")
