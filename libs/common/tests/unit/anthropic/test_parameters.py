"""Parameters: what becomes of each, on which model, under which policy."""

import hashlib
import json
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming

from floopy_common.openai.jsonl import Block
from floopy_common.providers.anthropic.capabilities import ROWS
from floopy_common.providers.anthropic.parameters import PARAMETERS, Rule
from floopy_common.providers.anthropic.policy import Context, Policy
from floopy_common.providers.anthropic.refusal import Refused
from floopy_common.providers.anthropic.request import JSON_INSTRUCTION, Request, Translated, translate
from floopy_submitter.core.validation import LineCheck

Params = Callable[..., dict[str, Any]]
Refusal = Callable[..., tuple[str | None, str | None]]

HAIKU, OPUS, NEWEST = "claude-haiku-4-5", "claude-opus-4-6", "claude-opus-5-5"
TOOLS = [{"type": "function", "function": {"name": "look"}}]
DROPPING = Context(policy=Policy(unsupported="drop"))


@pytest.mark.edge(38)
@pytest.mark.parametrize("model", ROWS)
def test_without_a_limit_the_model_may_write_all_it_can(params_of: Params, model: str) -> None:
    assert params_of(model=model)["max_tokens"] == ROWS[model].max_output


@pytest.mark.edge(38)
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(
    ("value", "code"),
    [
        (0, "invalid_value"),
        (-1, "invalid_value"),
        (64_001, "invalid_value"),
        (10**9, "invalid_value"),
        (10**30, "invalid_value"),
        ("100", "invalid_type"),
        (1e9, "invalid_type"),
        (True, "invalid_type"),
    ],
)
def test_a_limit_the_model_cannot_have_is_refused(
    refusal_of: Refusal, name: str, value: Any, code: str
) -> None:
    assert refusal_of(**{name: value}) == (name, code)


@pytest.mark.edge(39)
def test_two_limits_must_be_the_same(params_of: Params, refusal_of: Refusal) -> None:
    assert params_of(max_tokens=5, max_completion_tokens=5)["max_tokens"] == 5
    assert params_of(max_tokens=None, max_completion_tokens=5)["max_tokens"] == 5
    assert refusal_of(max_tokens=5, max_completion_tokens=6) == ("max_tokens", "invalid_value")


@pytest.mark.edge(43)
@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("n", 2, "unsupported_value"),
        ("n", True, "unsupported_value"),
        ("logprobs", 0, "unsupported_parameter"),
        ("logprobs", True, "unsupported_parameter"),
        ("top_logprobs", 3, "unsupported_parameter"),
        ("logit_bias", {"1": 5}, "unsupported_parameter"),
        ("presence_penalty", 0.5, "unsupported_parameter"),
        ("frequency_penalty", -0.5, "unsupported_parameter"),
        ("audio", {"voice": "a", "format": "wav"}, "unsupported_parameter"),
        ("modalities", ["text", "audio"], "unsupported_parameter"),
        ("web_search_options", {}, "unsupported_parameter"),
        ("moderation", {"model": "a"}, "unsupported_parameter"),
        ("stream_options", {"include_usage": True}, "unsupported_parameter"),
    ],
)
def test_what_cannot_be_had_is_refused_or_by_policy_left_out_and_noted(
    make_body: Callable[..., bytes], refusal_of: Refusal, name: str, value: Any, code: str
) -> None:
    assert refusal_of(**{name: value}) == (name, code)

    dropped = translate(make_body(**{name: value}), DROPPING)

    plain = translate(make_body(), DROPPING)
    assert isinstance(dropped, Translated)
    assert isinstance(plain, Translated)
    assert dropped.params == plain.params
    assert [note.partition(":")[0] for note in dropped.notes] == [name]


@pytest.mark.edge(43)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 1),
        ("logprobs", False),
        ("top_logprobs", 0),
        ("logit_bias", {}),
        ("presence_penalty", 0),
        ("frequency_penalty", 0.0),
        ("modalities", ["text"]),
        ("stream", False),
        ("seed", 7),
        ("metadata", {"a": "b"}),
        ("store", True),
        ("verbosity", "low"),
        ("service_tier", "flex"),
        ("prediction", {"type": "content", "content": "a"}),
        ("prompt_cache_key", "a"),
        ("prompt_cache_options", {"mode": "implicit"}),
        ("prompt_cache_retention", "24h"),
        ("parallel_tool_calls", True),
        ("parallel_tool_calls", False),
        ("tools", []),
        ("functions", []),
        ("response_format", {"type": "text"}),
    ],
)
def test_what_asks_for_nothing_changes_nothing(params_of: Params, name: str, value: Any) -> None:
    assert params_of(**{name: value}) == params_of()


@pytest.mark.edge(46)
@pytest.mark.parametrize(
    ("model", "thinking"),
    [
        ("claude-sonnet-5", {"type": "disabled"}),
        ("claude-opus-4-6", {"type": "disabled"}),
        ("claude-sonnet-5-5", {"type": "between_tools"}),
        ("claude-haiku-4-5", None),
    ],
)
def test_no_reasoning_is_the_least_the_model_can_do(params_of: Params, model: str, thinking: Any) -> None:
    params = params_of(model=model, reasoning_effort="none")

    assert params.get("thinking") == thinking
    assert "output_config" not in params


@pytest.mark.edge(46)
@pytest.mark.parametrize(
    ("model", "effort"),
    [("claude-opus-5-5", "none"), ("claude-fable-5", "none"), ("claude-opus-4-6", "xhigh")],
)
def test_an_effort_the_model_does_not_know_is_refused(
    refusal_of: Refusal, params_of: Params, model: str, effort: str
) -> None:
    assert refusal_of(model=model, reasoning_effort=effort) == ("reasoning_effort", "unsupported_value")
    assert params_of(DROPPING, model=model, reasoning_effort=effort) == params_of(model=model)


@pytest.mark.edge(46)
@pytest.mark.parametrize(
    ("model", "asked", "effort", "thinking"),
    [
        ("claude-sonnet-5", "minimal", "low", None),
        ("claude-opus-5-5", "xhigh", "xhigh", None),
        ("claude-opus-4-6", "medium", "medium", {"type": "adaptive"}),
        ("claude-opus-4-8", "max", "max", {"type": "adaptive"}),
        ("claude-haiku-4-5", "minimal", None, {"type": "enabled", "budget_tokens": 1024}),
        ("claude-haiku-4-5", "low", None, {"type": "enabled", "budget_tokens": 2048}),
        ("claude-haiku-4-5", "medium", None, {"type": "enabled", "budget_tokens": 8192}),
        ("claude-haiku-4-5", "high", None, {"type": "enabled", "budget_tokens": 16384}),
        ("claude-haiku-4-5", "max", None, {"type": "enabled", "budget_tokens": 32000}),
        ("claude-opus-4-5", "low", "low", {"type": "enabled", "budget_tokens": 2048}),
        ("claude-opus-4-5", "xhigh", None, {"type": "enabled", "budget_tokens": 32000}),
    ],
)
def test_effort_is_sent_as_effort_or_as_a_budget(
    params_of: Params, model: str, asked: str, effort: str | None, thinking: Any
) -> None:
    params = params_of(model=model, reasoning_effort=asked)

    assert params.get("output_config", {}).get("effort") == effort
    assert params.get("thinking") == thinking


@pytest.mark.edge(46)
@pytest.mark.parametrize(("limit", "budget"), [(5000, 4999), (1025, 1024), (1024, None), (1, None)])
def test_a_budget_leaves_room_for_the_answer(params_of: Params, limit: int, budget: int | None) -> None:
    thinking = params_of(max_tokens=limit, reasoning_effort="high").get("thinking", {})

    assert thinking.get("budget_tokens") == budget


@pytest.mark.edge(46)
@pytest.mark.parametrize(
    ("value", "code"),
    [("High", "invalid_value"), ({"effort": "high"}, "invalid_type"), ("", "invalid_value")],
)
def test_an_effort_in_other_words_is_refused(refusal_of: Refusal, value: Any, code: str) -> None:
    assert refusal_of(reasoning_effort=value) == ("reasoning_effort", code)


@pytest.mark.edge(48)
@pytest.mark.parametrize("name", ["user", "safety_identifier"])
def test_who_the_user_is_leaves_only_as_a_salted_hash(params_of: Params, name: str) -> None:
    params = params_of(Context(salt=b"org"), **{name: "ann@example.com"})

    assert params["metadata"] == {"user_id": hashlib.sha256(b"organn@example.com").hexdigest()}
    assert "example.com" not in json.dumps(params)


@pytest.mark.edge(48)
def test_the_safety_identifier_wins_and_an_empty_user_is_none(params_of: Params) -> None:
    both = params_of(user="a", safety_identifier="b")

    assert both == params_of(safety_identifier="b")
    assert "metadata" not in params_of(user="")


@pytest.mark.edge(49)
@pytest.mark.parametrize("value", [1, None, {}])
def test_an_unknown_parameter_is_refused_even_when_parameters_are_dropped(
    refusal_of: Refusal, value: Any
) -> None:
    for context in (None, DROPPING):
        assert refusal_of(context, top_k=value) == ("top_k", "unknown_parameter")


@pytest.mark.edge(49)
@pytest.mark.parametrize("name", [parameter.name for parameter in PARAMETERS])
def test_null_is_absent_for_every_known_parameter(params_of: Params, refusal_of: Refusal, name: str) -> None:
    if name in {"model", "messages"}:
        assert refusal_of(**{name: None}) == (name, "missing_required_parameter")
        assert refusal_of(without=(name,)) == (name, "missing_required_parameter")
    else:
        assert params_of(**{name: None}) == params_of()


@pytest.mark.edge(50)
def test_streaming_fails_the_batch_at_its_line_and_never_gets_past_the_translation(
    make_body: Callable[..., bytes], refusal_of: Refusal
) -> None:
    def line(number: int, body: bytes) -> bytes:
        return b'{"custom_id":"%d","method":"POST","url":"/v1/chat/completions","body":%b}' % (number, body)

    lines = [line(number, make_body(**({"stream": True} if number == 7 else {}))) for number in range(1, 11)]
    check = LineCheck("/v1/chat/completions")

    list(check.check(Block(1, 0, lines)))

    assert [fault.line for fault in check.faults] == [7]
    for context in (None, DROPPING):
        assert refusal_of(context, stream=True) == ("stream", "streaming_unsupported")


@pytest.mark.edge(47)
def test_a_json_object_is_asked_for_in_words_behind_everything_else(params_of: Params) -> None:
    messages = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]

    params = params_of(messages=messages, response_format={"type": "json_object"})

    assert [block["text"] for block in params["system"]] == ["a", JSON_INSTRUCTION]
    assert "output_config" not in params


def test_every_parameter_of_the_official_client_is_known() -> None:
    assert {parameter.name for parameter in PARAMETERS} == set(
        CompletionCreateParamsStreaming.__annotations__
    )
    assert len({parameter.name for parameter in PARAMETERS}) == len(PARAMETERS)


def test_every_mapped_parameter_is_read() -> None:
    assert {one.name for one in PARAMETERS if one.rule is Rule.MAPPED} == set(get_type_hints(Request))


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"", None, "invalid_value"),
        (b"{", None, "invalid_value"),
        (b"[]", None, "invalid_type"),
        (b"null", None, "invalid_type"),
        (b'{"model":"a\xff"}', None, "invalid_value"),
        (
            b'{"model":"claude-haiku-4-5","messages":[{"role":"user","content":"\\ud800"}]}',
            None,
            "invalid_value",
        ),
        (b'{"model":' + b"[" * 100_000, None, "invalid_value"),
        (b'{"model":1,"messages":[]}', "model", "invalid_type"),
    ],
)
def test_a_body_that_is_no_request_is_refused(body: bytes, param: str | None, code: str) -> None:
    outcome = translate(body, Context())

    assert isinstance(outcome, Refused)
    assert (outcome.param, outcome.code) == (param, code)


def test_a_model_nobody_knows_is_not_found_as_openai_says_it(make_body: Callable[..., bytes]) -> None:
    outcome = translate(make_body(model="gpt-4o-mini"), Context())

    assert isinstance(outcome, Refused)
    assert (outcome.status, outcome.param, outcome.code) == (404, "model", "model_not_found")


def test_text_in_any_script_is_not_inflated(make_body: Callable[..., bytes]) -> None:
    text = "汉字🎉" * 1000
    body = json.dumps({"model": HAIKU, "messages": [{"role": "user", "content": text}]}).encode()

    outcome = translate(body, Context())

    assert isinstance(outcome, Translated)
    assert text.encode() in outcome.params
    assert len(outcome.params) < len(text.encode()) + 200
