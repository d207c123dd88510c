"""What a line of a batch's input is refused for, and what is taken however odd it looks."""

import json
from typing import Any

import pytest
from floopy_batches.scanning import (
    CHAT,
    EMBEDDINGS,
    MESSAGES,
    all_taken,
    encoded,
    raw_body,
    request,
    scan_rows,
    scanned,
    the_fault,
    with_body,
    without,
)

from floopy_submitter.core.faults import Fault
from floopy_submitter.core.validation import MAX_DEPTH


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"no json",
        b"[]",
        b'"text"',
        b"1",
        b"null",
        b"{}}",
        b"{'custom_id': 'a'}",
        raw_body(b"NaN"),
        raw_body(b"-Infinity"),
        raw_body(b"01"),
        raw_body(b"1,"),
        raw_body(b'"\xff"'),
        raw_body(b'"\xed\xa0\x80"'),
        raw_body(b'"\x01"'),
        raw_body(b"[" * 100_000),
        raw_body(b"[" * 100_000 + b"]" * 100_000),
        raw_body(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        json.dumps(request()).encode("utf-16"),
        b"\x0b{}",
    ],
)
@pytest.mark.surface("4.1 NaN, Infinity, deep nesting; 4.4 invalid_json_line")
def test_a_line_that_is_no_json_object_is_invalid_json_line(line: bytes) -> None:
    fault = the_fault(line)

    assert (fault.code, fault.line, fault.param) == ("invalid_json_line", 1, None)
    assert fault.message.startswith("This line is not parseable as valid JSON.")


@pytest.mark.parametrize("name", ["custom_id", "method", "url", "body"])
def test_an_absent_field_is_missing_required_parameter(name: str) -> None:
    fault = the_fault(request("first"), without(name))

    assert fault == Fault(
        "missing_required_parameter", f"Missing required parameter: '{name}'.", name, line=2
    )


def test_a_line_without_any_field_has_one_fault() -> None:
    assert [fault.param for fault in scanned({}, {"url": CHAT}).faults] == ["custom_id", "custom_id"]


@pytest.mark.parametrize("name", ["custom_id", "method", "url", "body"])
@pytest.mark.parametrize("value", [None, 5, ["a"], True, {}, "text"])
def test_a_field_of_another_type_is_invalid_request(name: str, value: Any) -> None:
    if isinstance(value, dict if name == "body" else str):
        return

    fault = the_fault(request(**{name: value}))

    assert (fault.code, fault.param, fault.line) == ("invalid_request", name, 1)


@pytest.mark.parametrize("custom_id", ["", "x" * 513])
@pytest.mark.surface("4.1 custom_id: 1 to 512 characters")
def test_a_custom_id_has_1_to_512_characters(custom_id: str) -> None:
    fault = the_fault(request(custom_id))

    assert (fault.code, fault.param) == ("invalid_request", "custom_id")


@pytest.mark.parametrize("custom_id", ["x", "x" * 512, "\U0001f600" * 512, " ", "\x00", "a\nb", "{}", "$x"])
@pytest.mark.surface("4.1 custom_id: any text")
def test_a_custom_id_may_be_any_text(custom_id: str) -> None:
    assert all_taken(request(custom_id))


def test_a_repeated_custom_id_is_a_fault_of_the_repeat() -> None:
    lines = [request(str(number)) for number in range(1, 9)]

    fault = the_fault(*lines[:2], request("same"), *lines[2:7], request("same"))

    assert fault == Fault(
        "duplicate_custom_id",
        "The custom_id 'same' for this request is a duplicate of another request. "
        "The custom_id parameter must be unique for each request in a batch.",
        "custom_id",
        line=9,
    )


def test_a_custom_id_is_the_same_however_it_is_escaped() -> None:
    escaped = encoded(request("plain")).replace(b"plain", b"\\u0070lain")

    assert the_fault(request("plain"), escaped).code == "duplicate_custom_id"


def test_a_refused_line_still_takes_its_custom_id() -> None:
    faults = scanned(request(url="/v1/other"), request()).faults

    assert [(fault.code, fault.line) for fault in faults] == [("invalid_url", 1), ("duplicate_custom_id", 2)]


@pytest.mark.parametrize("method", ["GET", "post", ""])
def test_another_method_is_invalid_method(method: str) -> None:
    fault = the_fault(request(method=method))

    assert (fault.code, fault.param) == ("invalid_method", "method")


@pytest.mark.parametrize("url", ["", EMBEDDINGS, "https://evil.example/v1/chat/completions", CHAT + "/"])
def test_another_url_is_invalid_url(url: str) -> None:
    fault = the_fault(request(url=url))

    assert fault == Fault(
        "invalid_url",
        "The URL provided for this request does not match the batch endpoint.",
        "url",
        line=1,
    )


@pytest.mark.parametrize("model", [..., None])
def test_a_body_without_model_is_invalid_request(model: Any) -> None:
    fault = the_fault(with_body(model=model))

    assert fault == Fault("invalid_request", "Model parameter is required.", "body.model", line=1)


@pytest.mark.parametrize("model", [5, [], {}, "", "x" * 257])
def test_a_model_is_a_name(model: Any) -> None:
    fault = the_fault(with_body(model=model))

    assert (fault.code, fault.param) == ("invalid_request", "body.model")


@pytest.mark.parametrize("messages", [..., None])
def test_a_chat_body_without_messages_is_invalid_request(messages: Any) -> None:
    fault = the_fault(with_body(messages=messages))

    assert fault == Fault("invalid_request", "Messages parameter is required.", "body.messages", line=1)


@pytest.mark.surface("3.1 a moderation needs its input")
def test_a_moderation_without_input_is_invalid_request() -> None:
    url = "/v1/moderations"

    fault = the_fault(request(url=url, body={"model": "gpt-4o-mini"}), endpoint=url)

    assert (fault.code, fault.param) == ("invalid_request", "body.input")


def test_streaming_is_unsupported() -> None:
    fault = the_fault(with_body(stream=True))

    assert fault == Fault(
        "streaming_unsupported",
        "Chat Completions: Streaming is not supported in the Batch API.",
        "body.stream",
        line=1,
    )


def test_not_streaming_is_fine() -> None:
    assert all_taken(with_body(stream=False))
    assert all_taken(with_body(stream=None))


@pytest.mark.surface("4.4 mismatched_model")
def test_a_second_model_is_mismatched_model() -> None:
    other = request("b", body={"model": "gpt-4o", "messages": MESSAGES})

    fault = the_fault(request(), other)

    assert fault == Fault(
        "mismatched_model",
        "The model 'gpt-4o' for this request does not match the rest of the batch. "
        "Each batch must contain requests for a single model.",
        "body.model",
        line=2,
    )


@pytest.mark.surface("4.1 duplicate keys")
def test_the_last_of_equal_keys_counts() -> None:
    good = encoded(request()).removesuffix(b"}")

    assert scanned(good + b',"url":"/v1/other"}').faults[0].code == "invalid_url"
    assert scanned(b'{"method":5,"body":7,"custom_id":null,' + encoded(request())[1:]).faults == []


@pytest.mark.parametrize("body", [b"1" * 1_000_000, b"1e999999", b"-0", b"1E+400"])
@pytest.mark.surface("4.1 huge numbers")
def test_a_huge_number_is_json_and_goes_on_as_it_is(body: bytes) -> None:
    scan, rows = scan_rows(raw_body(body))

    assert scan.faults == []
    assert len(rows) > 0


@pytest.mark.parametrize("name", ["custom_id", "method", "url"])
def test_a_huge_number_is_no_string(name: str) -> None:
    line = encoded(request(**{name: "?"})).replace(b'"?"', b"9" * 1_000_000)

    assert the_fault(line).code == "invalid_request"


def test_half_a_surrogate_pair_is_refused_where_it_would_have_to_be_stored() -> None:
    line = encoded(request("?")).replace(b"?", b"\\ud800")

    assert the_fault(line).code in {"invalid_json_line", "invalid_request"}


def test_nesting_as_deep_as_allowed_is_taken() -> None:
    deep = MAX_DEPTH - 2

    assert all_taken(raw_body(b"[" * deep + b"]" * deep))
    assert the_fault(raw_body(b"[" * (deep + 1) + b"]" * (deep + 1))).code == "invalid_json_line"


@pytest.mark.parametrize("text", [b'"' + b"[" * 500 + b'"', b'"\\"' + b"{" * 500 + b'\\\\"', b'"\\\\"'])
def test_brackets_in_strings_are_no_nesting(text: bytes) -> None:
    assert all_taken(raw_body(text))


def test_many_brackets_side_by_side_are_no_nesting() -> None:
    assert all_taken(raw_body(b"[" + b",".join([b"{}"] * 1000) + b"]"))


@pytest.mark.parametrize("text", [b'\\"' * 2_000_000, b'"' * 4_000_000, b"\\" * 4_000_000])
def test_hostile_quotes_take_linear_time(text: bytes) -> None:
    assert the_fault(raw_body(b'"' + text + b"[" * 200)).code == "invalid_json_line"
