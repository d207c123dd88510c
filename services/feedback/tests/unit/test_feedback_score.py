"""Whole exchanges: which checks apply, what the worst choice is, and that no JSON whatever breaks it."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floopy_feedback.core.checks import WEIGHTS
from floopy_feedback.core.exchange import Unreadable
from floopy_feedback.core.score import Score, Scorer

PERSON = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
REMOTE = {"$ref": "http://127.0.0.1:9/schema.json"}
BASIC = {"finish", "answer", "refusal"}


def said(content: Any, finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}


def called(name: str | None, arguments: str | None, finish: str = "tool_calls") -> dict[str, Any]:
    call = {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}
    return said(None, finish, tool_calls=[call])


def score(request: dict[str, Any], *choices: dict[str, Any]) -> Score:
    return Scorer().score(msgspec.json.encode(request), msgspec.json.encode({"choices": choices}))


def failing(result: Score) -> dict[str, str | None]:
    return {name: check.detail for name, check in result.checks.items() if not check.ok}


def json_schema(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


def tools(*names: str, schema: Any = PERSON, **request: Any) -> dict[str, Any]:
    functions = [{"type": "function", "function": {"name": name, "parameters": schema}} for name in names]
    return {"tools": functions, **request}


def test_a_good_plain_answer_has_full_quality() -> None:
    result = score({"messages": []}, said("Hello."))

    assert result.quality == 1
    assert result.checks.keys() == BASIC | {"repetition"}


def test_the_worst_choice_counts() -> None:
    result = score({"n": 3}, said("Fine."), said("", "length"), said("Cut", "length"))

    assert failing(result) == {"finish": "length", "answer": "empty"}


def test_every_check_has_a_weight() -> None:
    seen = set()
    for request, choice in (
        ({}, said("a")),
        (json_schema(PERSON), said("{}")),
        (json_schema(REMOTE), said("{}")),
        (tools("f", tool_choice="required"), called("f", "{}")),
    ):
        seen |= score(request, choice).checks.keys()

    assert seen == WEIGHTS.keys()


@pytest.mark.parametrize(
    ("request_body", "content", "expected"),
    [
        ({"response_format": {"type": "json_object"}}, '{"a": 1}', {}),
        ({"response_format": {"type": "json_object"}}, "[1]", {"json": "not an object"}),
        ({"response_format": {"type": "json_object"}}, "```json\n{}\n```", {"json": "not JSON"}),
        ({"response_format": {"type": "text"}}, "not JSON", {}),
        ({"response_format": None}, "not JSON", {}),
        (json_schema(PERSON), '{"age": 3}', {}),
        (json_schema(PERSON), '{"age": "3"}', {"schema": "breaks type"}),
        (json_schema(PERSON), "{", {"json": "not JSON"}),
        (json_schema(None), "[]", {}),
        ({"response_format": {"type": "json_schema"}}, "[]", {}),
        (json_schema(REMOTE), "[]", {"schema_unusable": "reference out of the schema"}),
    ],
)
def test_json_is_checked_where_it_was_asked_for(
    request_body: dict[str, Any], content: str, expected: dict[str, str]
) -> None:
    assert failing(score(request_body, said(content))) == expected


def test_an_unusable_schema_does_not_count_against_the_answer() -> None:
    assert score(json_schema(REMOTE), said("[]")).quality == 1


def test_json_is_not_expected_of_a_refusal_or_of_a_tool_call() -> None:
    assert failing(score(json_schema(PERSON), said(None, refusal="No."))) == {
        "refusal": "marked by the provider"
    }
    assert failing(score({**json_schema(PERSON), **tools("f")}, called("f", '{"age": 1}'))) == {}


@pytest.mark.parametrize(
    ("request_body", "choice", "expected"),
    [
        (tools("f", "g"), called("g", '{"age": 1}'), {}),
        (tools("f"), called("h", '{"age": 1}'), {"tool_name": "not a tool of the request"}),
        (tools("f"), called(None, "{}"), {"tool_name": "not a tool of the request"}),
        ({}, called("f", "{}"), {"tool_name": "not a tool of the request"}),
        (tools("f"), called("f", "{"), {"tool_arguments": "arguments are not JSON"}),
        (tools("f"), called("f", "[]"), {"tool_arguments": "arguments are not an object"}),
        (tools("f"), called("f", '{"age": "x"}'), {"tool_arguments": "breaks type"}),
        (tools("f"), called("f", ""), {"tool_arguments": "breaks required"}),
        (tools("f", schema=None), called("f", ""), {}),
        (tools("f", schema=REMOTE), called("f", "{}"), {"schema_unusable": "reference out of the schema"}),
        (tools("f", tool_choice="auto"), said("no tool"), {}),
        (tools("f", tool_choice="required"), said("no tool"), {"tool_choice": "no tool was called"}),
        (tools("f", tool_choice="none"), called("f", '{"age": 1}'), {"tool_choice": "a tool was called"}),
        (tools("f", tool_choice="none"), said("no tool"), {}),
        (
            tools("f", "g", tool_choice={"type": "function", "function": {"name": "f"}}),
            called("g", '{"age": 1}', "stop"),
            {"tool_choice": "another tool was called"},
        ),
        (
            tools("f", tool_choice={"type": "function", "function": {"name": "f"}}),
            said("no tool"),
            {"tool_choice": "no tool was called"},
        ),
        (
            tools(
                "f",
                tool_choice={
                    "type": "allowed_tools",
                    "allowed_tools": {
                        "mode": "auto",
                        "tools": [{"type": "function", "function": {"name": "f"}}],
                    },
                },
            ),
            said("no tool"),
            {},
        ),
        (tools("f", tool_choice={"type": "new kind"}), said("no tool"), {}),
        (
            {"functions": [{"name": "f", "parameters": PERSON}], "function_call": {"name": "f"}},
            said(None, "function_call", function_call={"name": "f", "arguments": '{"age": 1}'}),
            {},
        ),
        (
            {"tools": [{"type": "custom", "custom": {"name": "sql"}}]},
            said(
                None,
                "tool_calls",
                tool_calls=[{"type": "custom", "custom": {"name": "sql", "input": "SELECT"}}],
            ),
            {},
        ),
    ],
)
def test_tool_calls_are_checked_against_the_request(
    request_body: dict[str, Any], choice: dict[str, Any], expected: dict[str, str]
) -> None:
    assert failing(score(request_body, choice)) == expected


def test_of_several_calls_each_must_be_right() -> None:
    calls = [called("f", '{"age": 1}'), called("f", '{"age": "x"}'), called("h", "{}")]
    merged = [call for choice in calls for call in choice["message"]["tool_calls"]]

    result = score(tools("f"), said(None, "tool_calls", tool_calls=merged))

    assert failing(result) == {"tool_name": "not a tool of the request", "tool_arguments": "breaks type"}


@pytest.mark.parametrize(
    ("request_body", "response_body", "reason"),
    [
        (b"", b"{}", "request_unreadable"),
        (b"[]", b'{"choices": []}', "request_unreadable"),
        (b'{"tools": 7}', b'{"choices": []}', "request_unreadable"),
        (b"{}", b"", "response_unreadable"),
        (b"{}", b"{}", "response_unreadable"),
        (b"{}", b'{"choices": []}', "no_choices"),
        (b"{}", b'{"choices": [{"message": {"content": "\xff"}}]}', "response_unreadable"),
        (b"{}", b'{"choices": [{"message": ' + b"[" * 100_000, "response_unreadable"),
    ],
)
def test_bodies_that_are_none_are_unreadable(request_body: bytes, response_body: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        Scorer().score(request_body, response_body)


def test_the_same_bytes_give_the_same_score_whatever_was_scored_before() -> None:
    scorer = Scorer()
    request = msgspec.json.encode(json_schema(PERSON))
    response = msgspec.json.encode({"choices": [said('{"age": "x"}')]})

    first = scorer.score(request, response)
    scorer.score(msgspec.json.encode(json_schema(REMOTE)), response)

    assert scorer.score(request, response) == first == Scorer().score(request, response)


def test_a_detail_never_quotes_content() -> None:
    secret = "s3cret-content"
    for request, choice in (
        (json_schema(PERSON), said(f'{{"{secret}": "{secret}"}}')),
        (json_schema({"$ref": secret}), said("{}")),
        (tools("f"), called(secret, f'{{"age": "{secret}"}}')),
        ({}, said(secret, secret)),
    ):
        assert secret not in repr(score(request, choice))


KEYS = [
    "choices",
    "message",
    "content",
    "finish_reason",
    "refusal",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "type",
    "custom",
    "text",
    "n",
    "tools",
    "tool_choice",
    "response_format",
    "json_schema",
    "schema",
    "parameters",
    "functions",
    "function_call",
    "allowed_tools",
    "mode",
]
WORDS = [
    "stop",
    "length",
    "json_object",
    "json_schema",
    "function",
    "required",
    "none",
    "auto",
    "f",
    "{}",
    "[",
    "#",
]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from(WORDS)
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=30,
)
CALLS = st.lists(
    st.fixed_dictionaries(
        {}, optional={"function": st.fixed_dictionaries({}, optional={"name": LEAVES, "arguments": LEAVES})}
    ),
    max_size=3,
)
MESSAGES = st.fixed_dictionaries({}, optional={"content": ANYTHING, "refusal": LEAVES, "tool_calls": CALLS})
RESPONSES = ANYTHING | st.fixed_dictionaries(
    {"choices": st.lists(st.fixed_dictionaries({"message": MESSAGES}, optional={"finish_reason": LEAVES}))}
)


@settings(deadline=None, max_examples=200)
@given(ANYTHING, RESPONSES)
def test_no_json_breaks_scoring(request_body: Any, response_body: Any) -> None:
    request, response = msgspec.json.encode(request_body), msgspec.json.encode(response_body)
    try:
        result = Scorer().score(request, response)
    except Unreadable:
        return
    assert 0 <= result.quality <= 1
    assert result.checks.keys() <= WEIGHTS.keys()
    assert Scorer().score(request, response) == result


@settings(deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_no_bytes_break_scoring(request_body: bytes, response_body: bytes) -> None:
    try:
        Scorer().score(request_body, response_body)
    except Unreadable:
        return
