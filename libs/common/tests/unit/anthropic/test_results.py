"""Results: every message as a chat completion, every other ending in OpenAI's terms."""

import json
from typing import Any

import pytest

from floopy_common.domain.errors import Invalid
from floopy_common.domain.money import Usage
from floopy_common.providers.anthropic.errors import MEANINGS
from floopy_common.providers.anthropic.memory import PLAIN, ResultContext, result_context
from floopy_common.providers.anthropic.result import AnthropicResults, Parsed

RESULTS = AnthropicResults()
KEY = "abcdefghij-12"
USAGE = {"input_tokens": 10, "output_tokens": 5}
TEXT = {"type": "text", "text": "Hi"}


def line(result: Any, key: str = KEY) -> bytes:
    return json.dumps({"custom_id": key, "result": result}, ensure_ascii=False).encode()


def message(*blocks: Any, **members: Any) -> bytes:
    said = {
        "id": "msg_01abc",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5-20251001",
        "content": list(blocks),
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": USAGE,
        **members,
    }
    return line({"type": "succeeded", "message": said})


def tool_use(name: str = "look", call_id: str = "toolu_1", **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def parse(raw: bytes, context: ResultContext = PLAIN) -> Parsed:
    return RESULTS.parse(raw, context, 1_700_000_000)


def body_of(raw: bytes, context: ResultContext = PLAIN) -> Any:
    body = parse(raw, context).answer.body
    assert body is not None
    return json.loads(body)


def choice_of(raw: bytes, context: ResultContext = PLAIN) -> Any:
    [choice] = body_of(raw, context)["choices"]
    return choice


def errored(kind: str, text: str = "Broken.", request_id: str | None = "req_1", **more: Any) -> bytes:
    error = {"type": "error", "error": {"type": kind, "message": text, **more}, "request_id": request_id}
    return line({"type": "errored", "error": error})


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


@pytest.mark.edge(57)
@pytest.mark.parametrize(
    ("kind", "status", "told", "code", "retryable"),
    [
        ("invalid_request_error", 400, "invalid_request_error", None, False),
        ("request_too_large", 413, "invalid_request_error", "request_too_large", False),
        ("not_found_error", 404, "invalid_request_error", "model_not_found", False),
        ("permission_error", 403, "invalid_request_error", "permission_denied", False),
        ("rate_limit_error", 429, "requests", "rate_limit_exceeded", True),
        ("billing_error", 429, "insufficient_quota", "insufficient_quota", False),
        ("authentication_error", 500, "server_error", "upstream_auth", False),
        ("api_error", 500, "server_error", None, True),
        ("timeout_error", 504, "server_error", None, True),
        ("overloaded_error", 503, "server_error", None, True),
        ("something_new", 500, "server_error", None, False),
    ],
)
def test_an_error_is_told_in_openais_terms(
    kind: str, status: int, told: str, code: str | None, retryable: bool
) -> None:
    answer = parse(errored(kind)).answer

    error = {"message": "Broken.", "type": told, "param": None, "code": code}
    assert json.loads(answer.body or b"") == {"error": error}
    assert (answer.status_code, answer.request_id, answer.retryable) == (status, "req_1", retryable)
    assert not answer.ok


@pytest.mark.edge(57)
def test_every_meaning_is_held_by_the_table_above() -> None:
    [mark] = [
        mark
        for mark in test_an_error_is_told_in_openais_terms.pytestmark  # type: ignore[attr-defined]
        if mark.name == "parametrize"
    ]

    assert {row[0] for row in mark.args[1]} == {*MEANINGS, "something_new"}


@pytest.mark.edge(57)
def test_an_error_without_a_request_id_has_none() -> None:
    assert parse(errored("api_error", request_id=None)).answer.request_id is None


@pytest.mark.edge(57)
def test_an_error_code_in_the_details_is_kept_where_openai_has_none() -> None:
    details = {"error_code": "image_dimensions_too_large"}

    def code(kind: str) -> Any:
        return json.loads(parse(errored(kind, details=details)).answer.body or b"")["error"]["code"]

    assert code("invalid_request_error") == "image_dimensions_too_large"
    assert code("rate_limit_error") == "rate_limit_exceeded"


@pytest.mark.edge(57)
@pytest.mark.parametrize(
    ("text", "param", "code"),
    [
        ("prompt is too long: 210000 tokens > 200000 maximum", "messages", "context_length_exceeded"),
        ("input length and `max_tokens` exceed context window", "messages", "context_length_exceeded"),
        ("messages.3.content.0.image.source: bad", "messages", None),
        ("system.0.text: bad", "messages", None),
        ("max_tokens: 9 > 8", "max_tokens", None),
        ("output_config.format.schema: bad", "response_format", None),
        ("thinking.budget_tokens: bad", "reasoning_effort", None),
        ("Something: bad", None, None),
        ("container.id: bad", None, None),
    ],
)
def test_what_an_error_is_about_is_named_as_the_caller_knows_it(
    text: str, param: str | None, code: str | None
) -> None:
    error = json.loads(parse(errored("invalid_request_error", text)).answer.body or b"")["error"]

    assert (error["message"], error["param"], error["code"]) == (text, param, code)


@pytest.mark.edge(57)
def test_an_error_tells_nothing_of_the_account() -> None:
    secrets = ["sk-ant-api03-abcdefgh", "wrkspc_01AbCdEfGhIj", "0f8fad5b-d9cb-469f-a165-70867728950e"]

    body = parse(errored("permission_error", " ".join(secrets))).answer.body or b""

    assert not any(secret.encode() in body for secret in secrets)
    assert body.count(b"[redacted]") == 3


@pytest.mark.edge(57)
@pytest.mark.parametrize(
    "error",
    [None, {}, {"error": None}, {"error": {}}, {"error": 7}, 7, {"error": {"type": 1, "message": []}}],
)
def test_an_error_that_says_nothing_is_a_server_error(error: Any) -> None:
    answer = parse(line({"type": "errored", "error": error})).answer

    assert answer.status_code == 500
    assert json.loads(answer.body or b"")["error"]["message"]


@pytest.mark.parametrize(("kind", "code"), [("canceled", "batch_cancelled"), ("expired", "batch_expired")])
def test_a_line_that_never_ran_says_so(kind: str, code: str) -> None:
    answer = parse(line({"type": kind})).answer

    assert (answer.status_code, answer.body) == (None, None)
    assert json.loads(answer.error or b"")["code"] == code


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


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'{"custom_id":"a"}',
        b'{"custom_id":1,"result":{"type":"expired"}}',
        line({"type": "succeeded"}),
        line({"type": "succeeded", "message": 7}),
        line({"type": "transcended", "message": {}}),
        line(None),
        b"[" * 100_000,
    ],
    ids=lambda raw: raw[:40].decode(),
)
def test_a_line_that_is_no_result_is_invalid(raw: bytes) -> None:
    with pytest.raises(Invalid):
        RESULTS.parse_result(raw)


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
