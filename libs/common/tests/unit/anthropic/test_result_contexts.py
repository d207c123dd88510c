"""Results read by what their request asked: cuts, fences, legacy calls, the model's name."""

import json
from typing import Any

import pytest
from floopy_anthropic.results import TEXT, body_of, choice_of, message, parse, tool_use

from floopy_common.providers.anthropic.memory import PLAIN, ResultContext, result_context


@pytest.mark.edge(59)
@pytest.mark.parametrize(
    ("blocks", "cuts", "content"),
    [
        (["one\ntwo\nthree"], ("\n",), "one"),
        (["one two"], ("\n",), "one two"),
        (["one\n", "two"], ("\n\n",), "one\ntwo"),
        (["one\n", "\ntwo"], ("\n\n",), "one"),
        (["\none"], ("\n",), ""),
        (["a b\nc"], ("\n", " "), "a"),
    ],
)
def test_an_answer_is_cut_where_an_unsent_stop_first_occurs(
    blocks: list[str], cuts: tuple[str, ...], content: str
) -> None:
    raw = message(*({"type": "text", "text": text} for text in blocks))

    assert choice_of(raw, ResultContext(cuts=cuts))["message"]["content"] == content


@pytest.mark.edge(59)
@pytest.mark.parametrize(
    ("stop_reason", "told"),
    [("max_tokens", "stop"), ("tool_use", "stop"), ("something_new", "stop"), ("refusal", "content_filter")],
)
def test_an_answer_that_was_cut_stopped_there_and_called_nothing(stop_reason: str, told: str) -> None:
    raw = message({"type": "text", "text": "a\nb"}, tool_use(a=1), stop_reason=stop_reason)

    choice = choice_of(raw, ResultContext(cuts=("\n",)))

    assert choice["message"] == {"role": "assistant", "content": "a", "refusal": None, "annotations": []}
    assert choice["finish_reason"] == told


@pytest.mark.edge(47)
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        ('  ```\n{"a": 1}\n```\n', '{"a": 1}'),
        ('```{"a": 1}```', '{"a": 1}'),
        ('{"a": 1}', '{"a": 1}'),
        ("```json\n{broken\n```", "```json\n{broken\n```"),
        ('Here:\n```json\n{"a": 1}\n```', 'Here:\n```json\n{"a": 1}\n```'),
        ("```", "```"),
        ("`````", "`````"),
        ("", ""),
    ],
)
def test_one_fence_around_a_json_object_is_taken_off_when_json_was_asked_for(text: str, told: str) -> None:
    raw = message({"type": "text", "text": text})

    assert choice_of(raw, ResultContext(json_object=True))["message"]["content"] == told
    assert choice_of(raw)["message"]["content"] == text


@pytest.mark.edge(31)
def test_a_legacy_request_is_answered_in_its_own_shape() -> None:
    raw = message(TEXT, tool_use(a=1), stop_reason="tool_use")

    choice = choice_of(raw, ResultContext(functions=True))

    assert choice["message"]["function_call"] == {"name": "look", "arguments": '{"a":1}'}
    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "function_call"


@pytest.mark.parametrize(
    ("members", "context"),
    [
        ({}, PLAIN),
        ({"stop": "END"}, PLAIN),
        ({"stop": ["\n", "END", " "]}, ResultContext(cuts=("\n", " "))),
        ({"stop": ["\n", 1]}, PLAIN),
        ({"stop": ["", "\n"]}, PLAIN),
        ({"functions": [{"name": "a"}]}, ResultContext(functions=True)),
        ({"functions": []}, PLAIN),
        ({"functions": None, "stop": None, "response_format": None}, PLAIN),
        ({"response_format": {"type": "json_object"}}, ResultContext(json_object=True)),
        ({"response_format": {"type": "text"}}, PLAIN),
        ({"model": "gpt-4o-mini"}, ResultContext(model="gpt-4o-mini")),
        ({"model": "anthropic/claude-opus-5"}, ResultContext(model="anthropic/claude-opus-5")),
    ],
)
def test_what_the_way_back_needs_follows_from_the_request(
    members: dict[str, Any], context: ResultContext
) -> None:
    body = {"model": "claude-opus-5", "messages": [], **members}

    assert result_context(json.dumps(body).encode()) == context


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"model":1}', b"\xff"])
def test_a_request_that_never_ran_needs_nothing(body: bytes) -> None:
    assert result_context(body) == PLAIN


def test_the_name_a_caller_gave_a_model_is_the_name_it_answers_with() -> None:
    raw = message(TEXT)

    assert body_of(raw, ResultContext(model="gpt-4o-mini"))["model"] == "gpt-4o-mini"
    assert parse(raw, ResultContext(model="gpt-4o-mini")).answer.model == "gpt-4o-mini"
