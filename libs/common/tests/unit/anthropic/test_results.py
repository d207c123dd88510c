"""Results: every message as a chat completion, whatever it holds."""

import json
from typing import Any

import pytest
from floopy_anthropic.results import (
    KEY,
    RESULTS,
    TEXT,
    USAGE,
    body_of,
    choice_of,
    line,
    message,
    parse,
    tool_use,
)

from floopy_common.domain.money import Usage


def test_a_message_is_a_chat_completion_member_by_member() -> None:
    parsed = parse(message(TEXT))

    assert json.loads(parsed.answer.body or b"") == {
        "id": "chatcmpl-01abc",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "claude-haiku-4-5-20251001",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi", "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": None,
    }
    assert parsed.answer.ok
    assert (parsed.answer.model, parsed.answer.finish_reason) == ("claude-haiku-4-5-20251001", "stop")
    assert parsed.answer.usage == Usage(10, 5)
    assert parsed.notes == ()


@pytest.mark.edge(51)
def test_text_around_a_call_is_joined_without_a_separator() -> None:
    choice = choice_of(
        message(TEXT, tool_use(a=1), {"type": "text", "text": " there"}, stop_reason="tool_use")
    )

    assert choice["message"]["content"] == "Hi there"
    assert choice["message"]["tool_calls"] == [
        {"id": "toolu_1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}
    ]
    assert choice["finish_reason"] == "tool_calls"


@pytest.mark.edge(51)
def test_thinking_that_used_up_the_limit_leaves_no_content() -> None:
    thinking = {"type": "thinking", "thinking": "", "signature": "x"}

    choice = choice_of(
        message(thinking, {"type": "redacted_thinking", "data": "y"}, stop_reason="max_tokens")
    )

    assert choice["message"]["content"] is None
    assert choice["finish_reason"] == "length"
    assert "reasoning_content" not in choice["message"]


@pytest.mark.edge(51)
def test_an_empty_message_is_an_answer_without_content() -> None:
    choice = choice_of(message())

    assert choice["message"]["content"] is None
    assert choice["finish_reason"] == "stop"
    assert "tool_calls" not in choice["message"]


@pytest.mark.edge(52)
@pytest.mark.parametrize(
    ("said", "told", "notes"),
    [
        ("end_turn", "stop", ()),
        ("stop_sequence", "stop", ()),
        ("max_tokens", "length", ()),
        ("tool_use", "tool_calls", ()),
        ("refusal", "content_filter", ()),
        ("model_context_window_exceeded", "length", ()),
        ("pause_turn", "length", ("unknown_stop_reason",)),
        ("something_new", "length", ("unknown_stop_reason",)),
        (None, "length", ("unknown_stop_reason",)),
    ],
)
def test_an_ending_is_told_as_complete_only_when_it_is_known_to_be(
    said: str | None, told: str, notes: tuple[str, ...]
) -> None:
    parsed = parse(message(TEXT, stop_reason=said))

    assert choice_of(message(TEXT, stop_reason=said))["finish_reason"] == told
    assert (parsed.answer.finish_reason, parsed.notes) == (told, notes)


@pytest.mark.edge(52)
@pytest.mark.parametrize(("arguments", "kept"), [({}, False), ({"a": 1}, True)])
def test_a_call_that_was_cut_off_before_its_arguments_is_no_call(arguments: Any, kept: bool) -> None:
    choice = choice_of(message(TEXT, tool_use(**arguments), stop_reason="max_tokens"))

    assert ("tool_calls" in choice["message"]) is kept
    assert choice["finish_reason"] == "length"


@pytest.mark.edge(53)
@pytest.mark.parametrize(
    ("details", "refusal"),
    [
        ({"type": "refusal", "category": "cyber", "explanation": "No."}, "No."),
        ({"type": "refusal", "category": None, "explanation": None}, None),
        ({}, None),
        (None, None),
    ],
)
def test_a_refusal_is_an_answer_whose_text_is_kept(details: Any, refusal: str | None) -> None:
    raw = message(TEXT, stop_reason="refusal", stop_details=details)

    choice = choice_of(raw)

    assert parse(raw).answer.ok
    assert (choice["message"]["content"], choice["message"]["refusal"]) == ("Hi", refusal)
    assert choice["finish_reason"] == "content_filter"


@pytest.mark.edge(54)
def test_what_was_read_from_the_cache_or_written_to_it_is_input_too() -> None:
    usage = {
        **USAGE,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 1000,
        "output_tokens_details": {"thinking_tokens": 3},
    }

    raw = message(TEXT, usage=usage)

    told = body_of(raw)["usage"]
    assert (told["prompt_tokens"], told["completion_tokens"], told["total_tokens"]) == (1110, 5, 1115)
    assert told["prompt_tokens_details"]["cached_tokens"] == 100
    assert told["prompt_tokens_details"]["cache_write_tokens"] == 1000
    assert told["completion_tokens_details"]["reasoning_tokens"] == 3
    assert parse(raw).answer.usage == Usage(1110, 5, 100, 3, 1000)


@pytest.mark.edge(54)
def test_null_counts_are_zero() -> None:
    usage = {**USAGE, "cache_read_input_tokens": None, "cache_creation_input_tokens": None}
    usage |= {"output_tokens_details": None}

    assert parse(message(TEXT, usage=usage)).answer.usage == Usage(10, 5)


@pytest.mark.edge(54)
def test_thinking_that_is_not_counted_is_noted() -> None:
    parsed = parse(message({"type": "thinking", "thinking": "a", "signature": "b"}, TEXT))

    assert parsed.answer.usage == Usage(10, 5)
    assert parsed.notes == ("thinking_tokens_unknown",)


@pytest.mark.edge(54)
def test_a_message_made_in_iterations_costs_their_sum_when_the_total_is_zero() -> None:
    parts = [{**USAGE, "cache_read_input_tokens": 1}, USAGE]
    nothing = {"input_tokens": 0, "output_tokens": 0}

    assert parse(message(TEXT, usage={**nothing, "iterations": parts})).answer.usage == Usage(21, 10, 1)
    assert parse(message(TEXT, usage={**USAGE, "iterations": parts})).answer.usage == Usage(10, 5)
    assert parse(message(TEXT, usage=nothing)).answer.usage == Usage(0, 0)


@pytest.mark.edge(54)
@pytest.mark.parametrize(
    "usage", [None, {}, {"input_tokens": 1}, {"input_tokens": "1", "output_tokens": 2}, 7]
)
def test_usage_that_is_not_there_is_not_made_up(usage: Any) -> None:
    parsed = parse(message(TEXT, usage=usage))

    assert parsed.answer.ok
    assert parsed.answer.usage is None
    assert body_of(message(TEXT, usage=usage))["usage"] is None
    assert parsed.notes == ("usage_missing",)


@pytest.mark.edge(55)
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ('{"a": "é\\u00e9\\n"}', '{"a":"éé\\n"}'),
        ('{ "a" : {} , "b":[ ] }', '{"a":{},"b":[]}'),
        (
            '{"a": 1.0, "b": 1, "c": 1e2, "d": 123456789012345678901234567890}',
            '{"a":1.0,"b":1,"c":1e2,"d":123456789012345678901234567890}',
        ),
        ("{}", "{}"),
        ('{"a":"\\ud800"}', '{"a":"\ufffd"}'),
    ],
)
def test_arguments_are_compact_with_numbers_as_they_were(given: str, told: str) -> None:
    raw = message(tool_use(marker=1), stop_reason="tool_use").replace(b'{"marker": 1}', given.encode())

    [call] = choice_of(raw)["message"]["tool_calls"]

    assert call["function"]["arguments"] == told


@pytest.mark.edge(56)
@pytest.mark.parametrize(
    "block",
    [
        {"type": "server_tool_use", "id": "a", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "a", "content": []},
        {"type": "hologram", "text": 7},
        {"type": "hologram", "text": "secret", "input": [1], "name": {}},
        {},
    ],
)
def test_a_block_nobody_knows_is_left_out_and_noted(block: dict[str, Any]) -> None:
    raw = message(TEXT, block)

    assert choice_of(raw)["message"]["content"] == "Hi"
    assert "tool_calls" not in choice_of(raw)["message"]
    assert parse(raw).notes == ("unknown_block",)


def test_text_that_is_not_quite_unicode_costs_a_character_and_not_the_answer() -> None:
    raw = message({"type": "text", "text": "MARK"})

    for broken in (b"\xff", b"\\ud800"):
        found = raw.replace(b"MARK", b"a" + broken + b"b")
        assert choice_of(found)["message"]["content"] == "a\ufffdb"
        assert RESULTS.read_key(found) == KEY


def test_arguments_that_are_not_quite_unicode_cost_a_character_and_not_the_answer() -> None:
    raw = message(tool_use(a="MARK"), stop_reason="tool_use").replace(b"MARK", b"\xff\xed\xa0\x80")

    [call] = choice_of(raw)["message"]["tool_calls"]

    assert json.loads(call["function"]["arguments"])["a"].strip("\ufffd") == ""


def test_members_of_another_shape_hide_none_of_the_others() -> None:
    raw = message(TEXT, {"type": "text", "text": 7}, 7, id=7, stop_details=[], stop_reason="end_turn")

    body = body_of(raw)

    assert body["choices"][0]["message"]["content"] == "Hi"
    assert body["usage"]["prompt_tokens"] == 10
    assert body["id"].startswith("chatcmpl-")


def test_the_key_is_read_alone() -> None:
    assert RESULTS.read_key(line({"type": "canceled"}, "n-1")) == "n-1"
    assert RESULTS.read_key(b"{") is None
