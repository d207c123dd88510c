"""Results that are no message: errors in OpenAI's terms, lines that never ran, lines that are no result."""

import json
from typing import Any

import pytest
from floopy_anthropic.results import RESULTS, errored, line, parse

from floopy_common.domain.errors import Invalid
from floopy_common.providers.anthropic.errors import MEANINGS


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
