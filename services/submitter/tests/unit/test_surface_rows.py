"""Every code of a refused input, with the line and the parameter it names; how lines are told apart."""

import json
from typing import Any

import pytest

from floopy_common.openai.jsonl import LineSplitter
from floopy_submitter.core.faults import MAX_FAULTS
from floopy_submitter.core.validation import LineCheck, Request

CHAT = "/v1/chat/completions"


def line(custom_id: object = "a", body: object = None, **changes: Any) -> bytes:
    chat = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
    whole = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": chat if body is None else body}
    return json.dumps({**whole, **changes}).encode()


def checked(content: bytes, endpoint: str = CHAT) -> tuple[LineCheck, list[Request]]:
    check, splitter, requests = LineCheck(endpoint), LineSplitter(), []
    for block in (*splitter.feed(content), *splitter.finish()):
        requests += check.check(block)
        if check.is_hopeless:
            break
    return check, requests


def without(name: str) -> bytes:
    fields = json.loads(line("b"))
    del fields[name]
    return json.dumps(fields).encode()


CHAT_BODY = json.loads(line())["body"]
ROWS = [
    pytest.param(b"{", "invalid_json_line", None, "This line is not parseable as valid JSON."),
    pytest.param(b"[]", "invalid_json_line", None, "This line is not parseable as valid JSON."),
    pytest.param(
        line("b").replace(b'"Hello"', b"NaN"), "invalid_json_line", None, "This line is not parseable"
    ),
    *(
        pytest.param(
            without(name), "missing_required_parameter", name, f"Missing required parameter: '{name}'."
        )
        for name in ("custom_id", "method", "url", "body")
    ),
    pytest.param(
        line("a"), "duplicate_custom_id", "custom_id", "The custom_id 'a' for this request is a duplicate"
    ),
    pytest.param(
        line("b", {**CHAT_BODY, "model": "other"}),
        "mismatched_model",
        "body.model",
        "The model 'other' for this request does not match the rest of the batch.",
    ),
    pytest.param(
        line("b", {"messages": []}), "invalid_request", "body.model", "Model parameter is required."
    ),
    pytest.param(
        line("b", {"model": "gpt-4o-mini"}),
        "invalid_request",
        "body.messages",
        "Messages parameter is required.",
    ),
    pytest.param(
        line("b", url="/v1/embeddings"),
        "invalid_url",
        "url",
        "The URL provided for this request does not match the batch endpoint.",
    ),
    pytest.param(
        line("b", {**CHAT_BODY, "stream": True}),
        "streaming_unsupported",
        "body.stream",
        "Chat Completions: Streaming is not supported in the Batch API.",
    ),
    pytest.param(line("b", method="GET"), "invalid_method", "method", "The method 'GET' is not supported"),
]


@pytest.mark.surface("4.4 invalid_json_line")
@pytest.mark.surface("4.4 missing_required_parameter")
@pytest.mark.surface("4.4 duplicate_custom_id")
@pytest.mark.surface("4.4 mismatched_model")
@pytest.mark.surface("4.4 invalid_request body.model, body.messages")
@pytest.mark.surface("4.4 invalid_url")
@pytest.mark.surface("4.4 streaming_unsupported")
@pytest.mark.surface("4.4 invalid_method")
@pytest.mark.surface("9.5")
@pytest.mark.parametrize(("wrong", "code", "param", "message"), ROWS)
def test_each_fault_has_its_code_line_and_parameter(
    wrong: bytes, code: str, param: str | None, message: str
) -> None:
    check, requests = checked(line("a") + b"\n\n" + wrong + b"\n" + line("z"))

    (fault,) = check.faults
    assert (fault.code, fault.line, fault.param) == (code, 3, param)
    assert fault.message.startswith(message)
    assert [request.line_no for request in requests] == [1, 4]


@pytest.mark.surface("9.6")
def test_the_repeat_of_a_custom_id_is_at_fault_not_the_first() -> None:
    content = b"\n".join(line("same" if n in {3, 9} else str(n)) for n in range(1, 11))

    check, _ = checked(content)

    assert [(fault.code, fault.line) for fault in check.faults] == [("duplicate_custom_id", 9)]


@pytest.mark.surface("4.4 up to 100 errors, by line, one a line")
def test_faults_come_in_the_order_of_lines_and_no_more_than_a_hundred() -> None:
    check, _ = checked(b"{}\n" * 150 + b"{}")

    assert [fault.line for fault in check.faults] == list(range(1, MAX_FAULTS + 1))
    assert {fault.code for fault in check.faults} == {"missing_required_parameter"}
    assert check.is_hopeless


@pytest.mark.surface("9.7")
@pytest.mark.surface("4.1 BOM, CRLF, blank lines, no final newline, U+2028")
def test_only_a_newline_byte_ends_a_line() -> None:
    separators = line("\u2028 \u2029 \x85", {**CHAT_BODY, "user": "\u2028"})
    raw = json.loads(separators)
    content = b"\xef\xbb\xbf" + line("bom") + b"\r\n\r\n   \n" + json.dumps(raw, ensure_ascii=False).encode()
    content += b"\n" + line("last")

    check, requests = checked(content)

    assert check.faults == []
    assert [request.line_no for request in requests] == [1, 4, 5]
