"""What holds for every request and every result, made up by hypothesis."""

import contextlib
import itertools
import json
import re
from typing import Any

import pytest
from floopy_anthropic import CHAT_REQUESTS, JSON, MESSAGES, PLAIN_REQUESTS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from floopy_common.domain.errors import Invalid
from floopy_common.providers.anthropic.memory import ResultContext, result_context
from floopy_common.providers.anthropic.plain import translate_plain
from floopy_common.providers.anthropic.policy import Context, Policy, StoredFile
from floopy_common.providers.anthropic.refusal import Refused
from floopy_common.providers.anthropic.request import (
    Translated,
    _Translation,
    translate,
    upstream_element,
)
from floopy_common.providers.anthropic.result import AnthropicResults

RESULTS = AnthropicResults()
FILES = {"file-a": StoredFile(b"%PDF-", "a.pdf", None)}
DROPPING = Context(policy=Policy(unsupported="drop"))
LENIENT = Context(files=FILES, policy=Policy(unsupported="drop", forced_tool_choice="auto", auto_cache=True))
UNHURRIED = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def extras(model: Any) -> list[str]:
    """Members that the official type does not know, at any depth."""
    if isinstance(model, list):
        return [name for item in model for name in extras(item)]
    if not isinstance(model, BaseModel):
        return []
    inside = [name for field in type(model).model_fields for name in extras(getattr(model, field))]
    return [*(model.model_extra or {}), *inside]


def check_turns(params: dict[str, Any]) -> None:
    turns = params["messages"]
    spoken = [turn for turn in turns if turn["role"] != "system"]
    assert spoken[0]["role"] == spoken[-1]["role"] == "user"
    assert all(first["role"] != second["role"] for first, second in itertools.pairwise(spoken))
    for turn in turns:
        assert turn["content"]
        assert all(block["text"].strip() for block in turn["content"] if block["type"] == "text")


def check_tool_blocks(params: dict[str, Any]) -> None:
    """Each call's result is in the very next turn, before anything else in it."""
    turns = params["messages"]
    for number, turn in enumerate(turns):
        calls = {block["id"] for block in turn["content"] if block["type"] == "tool_use"}
        if calls:
            following = turns[number + 1]["content"][: len(calls)]
            assert {block.get("tool_use_id") for block in following} == calls
            assert params["tools"]
            assert all(re.fullmatch("[A-Za-z0-9_-]+", call) for call in calls)


@UNHURRIED
@given(CHAT_REQUESTS, st.sampled_from([LENIENT, Context(files=FILES)]))
@pytest.mark.edge(58, 60)
def test_a_chat_request_is_translated_soundly_or_refused_and_again_alike(
    asked: dict[str, Any], context: Context
) -> None:
    body = json.dumps(asked).encode()

    outcome = translate(body, context)

    assert outcome == translate(
        body, Context(**{name: getattr(context, name) for name in ("files", "policy")})
    )
    if isinstance(outcome, Translated):
        params = json.loads(outcome.params)
        check_turns(params)
        check_tool_blocks(params)
        assert outcome.params.count(b'"cache_control"') <= 4
    else:
        assert isinstance(outcome, Refused)
        assert outcome.message
        assert outcome.code


@UNHURRIED
@given(
    st.dictionaries(st.sampled_from(["model", "messages", "tools", "stop", "n", "x"]), JSON)
    | JSON
    | st.binary()
)
def test_nothing_that_can_be_sent_raises(body: Any) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    for context in (Context(), LENIENT):
        assert isinstance(translate(raw, context), Translated | Refused)
    assert isinstance(result_context(raw), ResultContext)


@UNHURRIED
@given(PLAIN_REQUESTS)
def test_the_short_way_gives_the_bytes_of_the_long_way(asked: dict[str, Any]) -> None:
    body = json.dumps(asked).encode()

    # a context that remembers what all earlier requests left in it
    short = translate_plain(body, DROPPING)

    if short is not None:
        assert Translated(*short) == _Translation(Context(policy=DROPPING.policy)).run(body)


def test_zeros_of_either_sign_are_sent_as_they_are() -> None:
    context = Context()
    messages = [{"role": "user", "content": "Hi"}]

    for spelled in ("0", "0.0", "-0.0", "0.0", "-0.0"):
        body = json.dumps({"model": "claude-haiku-4-5", "messages": messages, "temperature": float(spelled)})
        assert translate(body.encode(), context) == _Translation(Context()).run(body.encode())


def test_a_context_asked_for_many_limits_stays_right() -> None:
    context = Context()
    messages = [{"role": "user", "content": "Hi"}]

    for limit in (*range(1, 2_500), 1, 2):
        asked = {"model": "claude-haiku-4-5", "messages": messages, "max_tokens": limit}
        outcome = translate(json.dumps(asked).encode(), context)
        assert isinstance(outcome, Translated)
        assert json.loads(outcome.params)["max_tokens"] == limit


def test_an_ordinary_request_takes_the_short_way() -> None:
    messages = [{"role": role, "content": role} for role in ("system", "user", "assistant", "user")]
    body = {"model": "claude-haiku-4-5", "messages": messages, "max_tokens": 5, "temperature": 0}

    assert translate_plain(json.dumps(body).encode(), Context()) is not None


@UNHURRIED
@given(CHAT_REQUESTS, MESSAGES, st.integers(0, 2**31))
@pytest.mark.edge(58, 60)
def test_every_answer_is_a_chat_completion_by_the_official_type_and_the_same_bytes_again(
    asked: dict[str, Any], said: dict[str, Any], created: int
) -> None:
    raw = json.dumps({"custom_id": "n-1", "result": {"type": "succeeded", "message": said}}).encode()
    body = json.dumps(asked).encode()

    answer = RESULTS.parse(raw, result_context(body), created).answer

    assert answer == AnthropicResults().parse(raw, result_context(body), created).answer
    assert answer.body is not None
    completion = ChatCompletion.model_validate_json(answer.body, strict=True)
    assert extras(completion) == []
    assert completion.created == created
    assert completion.choices[0].finish_reason == answer.finish_reason
    for call in completion.choices[0].message.tool_calls or ():
        assert call.type == "function"
        assert isinstance(json.loads(call.function.arguments), dict)


@UNHURRIED
@given(st.binary() | JSON.map(lambda value: json.dumps({"custom_id": "n-1", "result": value}).encode()))
def test_a_line_of_results_is_read_or_invalid(raw: bytes) -> None:
    with contextlib.suppress(Invalid):
        RESULTS.parse_result(raw)
    key = RESULTS.read_key(raw)
    assert key is None or isinstance(key, str)


@given(st.integers(1, 10**9), st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=10, max_size=10))
@pytest.mark.edge(1)
def test_the_id_that_is_sent_is_one_that_anthropic_takes_whatever_the_users_is(
    line_no: int, nonce: str
) -> None:
    element = json.loads(upstream_element(nonce, line_no, b'{"a":1}'))

    assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", element["custom_id"])
    assert element == {"custom_id": f"{nonce}-{line_no}", "params": {"a": 1}}
