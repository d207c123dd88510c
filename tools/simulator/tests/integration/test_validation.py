"""What spoils a whole batch, and what is refused before there is one."""

import json

import openai
import pytest

CHAT = "/v1/chat/completions"
GOOD = {
    "custom_id": "good",
    "method": "POST",
    "url": CHAT,
    "body": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]},
}


def line(**changes):
    return json.dumps({**GOOD, "custom_id": "other", **changes}).encode()


def body(**changes):
    return line(body={**GOOD["body"], **changes})


def without(name):
    return json.dumps({key: value for key, value in GOOD.items() if key != name}).encode()


CASES = {
    "no json": (b"{oops", "invalid_json_line", None),
    "no object": (b"[1, 2]", "invalid_json_line", None),
    "bad utf-8": line(custom_id="x").replace(b'"hi"', b'"\xff"'),
    "NaN": body(temperature=float("nan")),
    "no custom_id": (without("custom_id"), "missing_required_parameter", "custom_id"),
    "no method": (without("method"), "missing_required_parameter", "method"),
    "no url": (without("url"), "missing_required_parameter", "url"),
    "no body": (without("body"), "missing_required_parameter", "body"),
    "numeric custom_id": (line(custom_id=7), "invalid_type", "custom_id"),
    "twice": (line(custom_id="good"), "duplicate_custom_id", "custom_id"),
    "other model": (body(model="gpt-4o"), "mismatched_model", "body.model"),
    "no model": (line(body={"messages": []}), "invalid_request", "body.model"),
    "no messages": (line(body={"model": "gpt-4o-mini"}), "invalid_request", "body.messages"),
    "other url": (line(url="/v1/embeddings"), "invalid_url", "url"),
    "get": (line(method="GET"), "invalid_method", "method"),
    "stream": (body(stream=True), "streaming_unsupported", "body.stream"),
}
CASES = {
    name: case if isinstance(case, tuple) else (case, "invalid_json_line", None)
    for name, case in CASES.items()
}


@pytest.mark.parametrize(("bad", "code", "param"), CASES.values(), ids=CASES)
def test_a_bad_line_fails_the_batch_and_is_named(account, bad, code, param):
    batch = account.run(b"\n".join([json.dumps(GOOD).encode(), b"", bad]))

    (error,) = batch.errors.data
    assert (batch.status, error.code, error.param, error.line) == ("failed", code, param, 3)
    assert error.message
    assert batch.output_file_id is None
    assert batch.error_file_id is None
    assert batch.failed_at is not None


def test_an_unknown_model_fails_the_batch(account, requests):
    batch = account.run(requests.lines([{**requests.body(), "model": "gpt-unheard-of"}]))

    assert [(error.code, error.line) for error in batch.errors.data] == [("model_not_found", 1)]


def test_several_errors_come_together_in_line_order(account, requests):
    batch = account.run(requests.many(1) + b"{oops\n" + without("url") + b"\n")

    assert [error.line for error in batch.errors.data] == [2, 3]


def test_bom_crlf_blank_lines_and_odd_separators_are_fine(account):
    lines = [json.dumps({**GOOD, "custom_id": f"c\u2028{n}\u0085"}, ensure_ascii=False) for n in range(3)]
    content = b"\xef\xbb\xbf" + "\r\n\r\n".join(lines).encode()

    batch = account.run(content)

    assert batch.errors is None
    assert {row["custom_id"] for row in account.lines(batch.output_file_id)} == {
        f"c\u2028{n}\u0085" for n in range(3)
    }


def test_too_many_lines_fail_the_batch(account, sim, requests):
    sim.configure(max_lines=5)

    batch = account.run(requests.many(6))

    assert (batch.status, len(batch.errors.data)) == ("failed", 1)
    assert "maximum of 5 requests" in batch.errors.data[0].message


def test_an_unknown_input_file_fails_the_batch_later(account):
    created = account.client.batches.create(input_file_id="file-none", endpoint=CHAT, completion_window="24h")

    batch = account.wait(created.id)

    assert (created.status, batch.status) == ("validating", "failed")
    assert (batch.errors.data[0].code, batch.errors.data[0].param) == ("invalid_request", "file_id")


def test_more_enqueued_tokens_than_allowed_fail_the_batch(account, sim, requests):
    content = requests.many(20)
    sim.configure(enqueued_token_limit=len(content) // 4 + 10, auto=False)
    first, second = account.create(content), account.create(content)
    sim.advance(first, "in_progress")

    refused = sim.advance(second, "in_progress")
    sim.advance(first, "completed")
    third = sim.advance(account.create(content), "in_progress")

    assert refused["status"] == "failed"
    assert refused["errors"]["data"][0]["code"] == "token_limit_exceeded"
    assert third["status"] == "in_progress"


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"endpoint": "/v1/nonsense"}, "endpoint", "invalid_value"),
        ({"completion_window": "1h"}, "completion_window", "invalid_value"),
        ({"completion_window": ""}, "completion_window", "invalid_value"),
        ({"input_file_id": 7}, "input_file_id", "invalid_type"),
        ({"metadata": {"tags": ["a"]}}, "metadata.tags", "invalid_type"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata", "object_above_max_properties"),
        ({"metadata": {"k" * 65: "x"}}, "metadata", "string_above_max_length"),
        ({"metadata": {"k": "v" * 513}}, "metadata", "string_above_max_length"),
        ({"metadata": "x"}, "metadata", "invalid_type"),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 1}},
            "output_expires_after.seconds",
            None,
        ),
    ],
)
def test_a_bad_create_is_refused_at_once(account, changes, param, code):
    body = {"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h", **changes}

    with pytest.raises(openai.BadRequestError) as refused:
        account.client.post("/batches", cast_to=object, body=body)

    assert refused.value.param == param
    assert refused.value.code == code or code is None
    assert account.client.batches.list().data == []


def test_metadata_at_its_limits_is_accepted(account, requests):
    metadata = {f"{n:064d}": "v" * 512 for n in range(16)}

    batch_id = account.create(requests.many(1), metadata=metadata)

    assert account.client.batches.retrieve(batch_id).metadata == metadata
