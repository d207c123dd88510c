"""Anthropic's results, and archives written in a format of their own, become the same kind of lines."""

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from floopy_common.events.lines import decode_line

MODEL = "claude-sonnet-4-5"
WRITES = {"input_tokens": 10, "cache_creation_input_tokens": 100, "cache_read_input_tokens": 30}


def asked(**body: Any) -> bytes:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello?"}], **body}
    line = {"custom_id": "mine", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(line).encode()


def case_of(make: Any, result: bytes, **body: Any) -> Any:
    shard = make.shard([1], {1: result}, provider="anthropic")
    return make.case({1: asked(**body)}, [shard], models=(body.get("model", MODEL),))


def test_a_message_becomes_a_completion_as_of_the_end_of_its_provider_batch(make: Any) -> None:
    rendered = case_of(make, make.message(1, "Hello!")).render()

    (line,) = rendered.lines()
    completion = ChatCompletion.model_validate(line["response"]["body"])
    assert (line["custom_id"], line["response"]["status_code"]) == ("mine", 200)
    assert completion.choices[0].message.content == "Hello!"
    assert completion.created == 1_795_525_200  # the shard's end
    ((_, value),) = rendered.events
    data = decode_line(value).data
    assert data.response is not None
    assert (data.response.preview, data.cost.flag) == ("Hello!", None)
    assert not rendered.tally.notes


@pytest.mark.parametrize(
    ("body", "text", "told"),
    [
        ({"response_format": {"type": "json_object"}}, '```json\n{"a": 1}\n```', '{"a": 1}'),
        ({}, '```json\n{"a": 1}\n```', '```json\n{"a": 1}\n```'),
        ({"stop": [" "]}, "one two", "one"),
    ],
)
def test_what_the_request_asked_for_shapes_the_answer(
    make: Any, body: dict[str, Any], text: str, told: str
) -> None:
    (line,) = case_of(make, make.message(1, text), **body).render().lines()
    assert line["response"]["body"]["choices"][0]["message"]["content"] == told


def test_a_model_by_another_name_keeps_that_name_and_its_price(make: Any) -> None:
    rendered = case_of(make, make.message(1), model="our-best").render()
    ((_, value),) = rendered.events
    assert rendered.lines()[0]["response"]["body"]["model"] == "our-best"
    assert decode_line(value).data.cost.flag is None


def test_input_includes_what_a_cache_gave_and_took(make: Any) -> None:
    case = case_of(make, make.message(1, usage={**WRITES, "output_tokens": 4}))

    rendered = case.render()

    ((_, value),) = rendered.events
    usage = decode_line(value).data.usage
    assert usage is not None
    assert (usage.input_tokens, usage.cached_tokens, usage.cache_write_tokens) == (140, 30, 100)
    assert usage.total_tokens == 144
    assert rendered.tally.usage == {
        "input_tokens": 140,
        "cached_tokens": 30,
        "cache_write_tokens": 100,
        "output_tokens": 4,
        "reasoning_tokens": 0,
        "total_tokens": 144,
    }


def test_an_event_without_cache_writes_does_not_mention_them(make: Any) -> None:
    ((_, value),) = case_of(make, make.message(1)).render().events
    assert b"cache_write_tokens" not in value


@pytest.mark.parametrize(
    ("written", "flag", "nano"), [(250_000_000, None, 31_150), (None, "pricing_missing", None)]
)
def test_cache_writes_have_their_own_price(
    make: Any, written: int | None, flag: str | None, nano: int | None
) -> None:
    case = case_of(make, make.message(1, usage={**WRITES, "output_tokens": 4}))
    case.rates = {**case.rates, "cache_write_nano": written}

    ((_, value),) = case.render().events

    cost = decode_line(value).data.cost
    assert (cost.flag, cost.nano_usd) == (flag, nano)


def test_what_nobody_has_heard_of_is_noted(make: Any) -> None:
    message = make.message(1, stop_reason="bored", content=[{"type": "hologram"}])
    rendered = case_of(make, message).render()
    assert dict(rendered.tally.notes) == {"unknown_block": 1, "unknown_stop_reason": 1}


@pytest.mark.edge(15, 18)
@pytest.mark.parametrize(
    ("ended", "code"), [("finished", "missing_from_provider"), ("lost", "results_expired")]
)
def test_a_line_that_the_results_do_not_have_is_the_servers_fault(make: Any, ended: str, code: str) -> None:
    shard = make.shard([1, 2], {1: make.message(1)}, provider="anthropic", ended=ended)
    rendered = make.case({1: asked(), 2: asked()}, [shard], models=(MODEL,)).render()

    done, failed = rendered.lines()

    assert done["response"]["status_code"] == 200
    assert (failed["error"], failed["response"]["status_code"]) == (None, 500)
    error = failed["response"]["body"]["error"]
    assert (error["type"], error["code"]) == ("server_error", code)
    data = decode_line(rendered.events[1][1]).data
    assert (data.status.value, data.status_code, data.cost.nano_usd) == ("failed", 500, 0)
    assert data.error is not None
    assert data.error.code == code


@pytest.mark.edge(11, 12)
@pytest.mark.parametrize("result", ["expired", "canceled"])
def test_what_a_message_batch_did_not_get_to_in_time_is_batch_expired(make: Any, result: str) -> None:
    """A cancelled result of a batch that we cancelled because its time was over is read as unanswered."""
    raw = json.dumps({"custom_id": "n-1", "result": {"type": result}}).encode()
    shard = make.shard([1], {1: raw} if result == "expired" else {}, provider="anthropic", ended="expired")

    (line,) = make.case({1: asked()}, [shard], models=(MODEL,)).render().lines()

    assert (line["response"], line["error"]["code"]) == (None, "batch_expired")


def test_an_expired_result_is_an_expired_line(make: Any) -> None:
    raw = json.dumps({"custom_id": "n-1", "result": {"type": "expired"}}).encode()
    (line,) = case_of(make, raw).render().lines()
    assert (line["response"], line["error"]["code"]) == (None, "batch_expired")


def test_an_archive_may_be_written_in_another_format_than_the_providers(make: Any) -> None:
    """Lines that were refused before anything was sent: their answers are ours."""
    sent = make.shard([1], {1: make.message(1)}, provider="anthropic")
    refused = make.shard([2], {2: make.failure(2, 400)}, provider="anthropic", written_by="ours")
    case = make.case({1: asked(), 2: asked(n=2)}, [sent, refused], models=(MODEL,))

    done, failed = case.render().lines()

    assert (done["response"]["status_code"], failed["response"]["status_code"]) == (200, 400)
    assert failed["response"]["body"]["error"]["code"] == "code_400"
