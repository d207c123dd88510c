"""Lines of OpenAI's results: every shape that providers are known to write, and garbage."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from floopy_common.domain.errors import Invalid
from floopy_common.domain.line import LineAnswer
from floopy_common.domain.money import Usage
from floopy_common.providers.openai import result
from floopy_common.providers.openai.result import MAX_TOKENS, OpenAiResults

RESULTS = OpenAiResults()


def parse(raw: bytes) -> LineAnswer:
    return RESULTS.parse_answer(raw, b"{}", 0)[0]


CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "é"}, "finish_reason": "stop"}],
    "usage": {
        "prompt_tokens": 10,
        "completion_tokens": 7,
        "total_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 3},
    },
}


def line(body: Any, status: int = 200, error: Any = None, **more: Any) -> bytes:
    response = {"status_code": status, "request_id": "req_1", "body": body}
    result = {"id": "batch_req_1", "custom_id": "abcdefghij-12", "response": response, "error": error, **more}
    return json.dumps(result, ensure_ascii=False).encode()


def test_a_chat_completion_is_read_whole() -> None:
    answer = parse(line(CHAT))

    assert answer.ok
    assert (answer.status_code, answer.request_id, answer.error) == (200, "req_1", None)
    assert answer.body == json.dumps(CHAT, ensure_ascii=False).encode()
    assert answer.model == "gpt-4o-mini-2024-07-18"
    assert answer.usage == Usage(10, 7, 4, 3)
    assert answer.finish_reason == "stop"


def test_the_body_keeps_its_bytes() -> None:
    body = b'{ "b" :1,\t"a": 1.50e+1, "b": 2, "s": "\\u00e9\\/"  }'

    answer = parse(b'{"error":null,"response":{"body": %b ,"status_code":200},"custom_id":"n-1"}' % body)

    assert answer.body == body


@pytest.mark.parametrize(
    ("body", "usage", "finish_reason"),
    [
        (
            {"object": "text_completion", "choices": [{"text": "x", "finish_reason": "length"}],
             "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}},
            Usage(5, 2), "length",
        ),
        (
            {"object": "list", "data": [{"embedding": [0.1, -2e-3], "index": 0}],
             "usage": {"prompt_tokens": 8, "total_tokens": 8}},
            Usage(8, 0), None,
        ),
        (
            {"object": "response", "status": "completed", "incomplete_details": None,
             "usage": {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 2}, "output_tokens": 4,
                       "output_tokens_details": {"reasoning_tokens": 1}, "total_tokens": 13}},
            Usage(9, 4, 2, 1), "stop",
        ),
        (
            {"object": "response", "status": "incomplete",
             "incomplete_details": {"reason": "max_output_tokens"},
             "usage": {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13}},
            Usage(9, 4), "length",
        ),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
            None, "content_filter",
        ),
        ({"object": "list", "id": "modr-1", "results": [{"flagged": False}]}, None, None),
        ({"choices": [], "usage": None}, None, None),
    ],
    ids=["completions", "embeddings", "responses", "cut response", "filtered response", "moderation", "bare"],
)  # fmt: skip
def test_every_endpoint_has_its_usage(body: Any, usage: Usage | None, finish_reason: str | None) -> None:
    answer = parse(line({"model": "m", **body}))

    assert answer.ok
    assert (answer.usage, answer.finish_reason, answer.model) == (usage, finish_reason, "m")


@pytest.mark.parametrize(
    "usage",
    [
        "many",
        [],
        {},
        {"total_tokens": 3},
        {"prompt_tokens": "3", "completion_tokens": 1},
        {"prompt_tokens": True, "completion_tokens": 1},
        {"prompt_tokens": 1.5, "completion_tokens": 1},
        {"prompt_tokens": None, "completion_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens": MAX_TOKENS + 1},
        {"prompt_tokens": 10**30, "completion_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": 5},
        {"prompt_tokens": 1, "completion_tokens": 1, "completion_tokens_details": {"reasoning_tokens": "x"}},
    ],
    ids=str,
)
def test_a_nonsensical_usage_is_none_and_hides_nothing_else(usage: Any) -> None:
    answer = parse(line({**CHAT, "usage": usage}))

    assert answer.ok
    assert answer.usage is None
    assert (answer.model, answer.finish_reason) == (CHAT["model"], "stop")


def test_figures_that_contradict_each_other_are_left_to_whoever_prices_them() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": -1, "prompt_tokens_details": {"cached_tokens": 9}}

    assert parse(line({**CHAT, "usage": usage})).usage == Usage(3, -1, 9, 0)


@pytest.mark.parametrize("changed", [{"model": 5}, {"choices": {"0": 1}}, {"status": 7}], ids=str)
def test_a_member_of_another_shape_hides_no_usage(changed: dict[str, Any]) -> None:
    answer = parse(line({**CHAT, **changed}))

    assert answer.ok
    assert answer.usage == Usage(10, 7, 4, 3)


@pytest.mark.parametrize("body", ["text", [1], 5, True, "", {}], ids=str)
def test_a_body_of_any_shape_is_an_answer(body: Any) -> None:
    answer = parse(line(body))

    assert answer.ok
    assert answer.body == json.dumps(body).encode()
    assert answer.usage is None


def test_a_refused_line_keeps_status_and_body() -> None:
    refused = {"error": {"message": "No.", "type": "invalid_request_error", "param": None, "code": "x"}}

    answer = parse(line(refused, 400))

    assert not answer.ok
    assert not answer.retryable
    assert (answer.status_code, answer.error) == (400, None)
    assert json.loads(answer.body or b"") == refused
    assert (answer.model, answer.usage) == (None, None)


@pytest.mark.parametrize(
    ("status", "again"), [(408, True), (429, True), (500, True), (529, True), (404, False)]
)
def test_only_passing_failures_are_worth_another_try(status: int, again: bool) -> None:
    assert parse(line({"error": {}}, status)).retryable is again


def test_a_line_without_a_response_keeps_its_error() -> None:
    raw = b'{"custom_id":"n-1","response":null,"error":{"code": "batch_expired","message":"Late."}}'

    answer = parse(raw)

    assert (answer.status_code, answer.body) == (None, None)
    assert answer.error == b'{"code": "batch_expired","message":"Late."}'


@pytest.mark.parametrize("status", [0, -1, 99, 600, 10**12])
def test_a_status_that_is_none_is_no_answer(status: int) -> None:
    answer = parse(line(CHAT, status))

    assert (answer.status_code, answer.body) == (None, None)
    assert answer.retryable


@pytest.mark.parametrize(
    "raw",
    [
        b'{"custom_id":"n-1"}',
        b'{"custom_id":"n-1","response":{}}',
        b'{"custom_id":"n-1","response":{"status_code":200,"body":null}}',
        b'{"custom_id":"n-1","response":{"status_code":200}}',
    ],
)
def test_what_says_nothing_is_no_success(raw: bytes) -> None:
    answer = parse(raw)

    assert not answer.ok
    assert answer.body is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"   ",
        b"null",
        b"[]",
        b"garbage",
        b"{",
        b'{"custom_id":"n-1"',
        b'{"custom_id":"n-1"}}',
        b'{"custom_id":"n-1","response":{"status_code":"200"}}',
        b'{"custom_id":"n-1","response":[]}',
        b'{"custom_id":"n-1","response":{"status_code":200,"body":{"a":NaN}}}',
        b'{"custom_id":"n-1","response":{"status_code":200,"body":{"a":"\x01"}}}',
        b'{"custom_id":"n-1","response":{"status_code":200,"body":\xff}}',
        b'{"custom_id":"n-1","response":{"status_code":200,"body":' + b"[" * 100_000,
        b'{"custom_id":"n-1","response":{"status_code":200,"body":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    ],
    ids=lambda raw: repr(raw[:60]),
)
def test_garbage_is_invalid(raw: bytes) -> None:
    with pytest.raises(Invalid):
        parse(raw)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b'{"id":1}', b'{"custom_id":null}', b'{"custom_id":5}', b"{\xff}"]
)
def test_a_line_without_a_custom_id_has_no_key(raw: bytes) -> None:
    assert RESULTS.read_key(raw) is None


@pytest.mark.parametrize("separator", [chr(0x2028), chr(0x2029), chr(0x85), chr(0xA0), "\U0001f600"])
def test_odd_characters_pass_through(separator: str) -> None:
    raw = line({**CHAT, "id": f"a{separator}b"})

    answer = parse(raw)

    assert answer.body is not None
    assert answer.body in raw
    assert json.loads(answer.body)["id"] == f"a{separator}b"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (rb"\ud83d", "�"),
        (rb"\uDE00 x", "� x"),
        (rb"\ud83d\ud83d\ude00", "�\U0001f600"),
        (rb"\\ud83d", r"\ud83d"),
        (rb"\\\ud83d", "\\�"),
        (rb"\"\ud83d\"", '"�"'),
    ],
)
def test_half_a_surrogate_pair_costs_that_character_alone(written: bytes, read: str) -> None:
    body = b'{"model":"m","choices":[],"id":"%b"}' % written

    answer = parse(b'{"custom_id":"n-1","response":{"status_code":200,"body":%b}}' % body)

    assert json.loads(answer.body or b"")["id"] == read
    assert answer.model == "m"
    assert RESULTS.read_key(b'{"custom_id":"%b"}' % written) == read


def test_a_broken_character_costs_that_character_alone() -> None:
    raw = line(CHAT).replace("é".encode(), b"\xe9")

    answer = parse(raw)

    assert json.loads(answer.body or b"")["choices"][0]["message"]["content"] == "�"
    assert answer.usage == Usage(10, 7, 4, 3)
    assert RESULTS.read_key(raw) == "abcdefghij-12"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
BODIES = JSON | st.builds(
    lambda more: {**CHAT, **more}, st.dictionaries(st.sampled_from([*CHAT, "status"]), JSON)
)


@given(body=BODIES, status=st.integers(-1, 700), escaped=st.booleans())
def test_whatever_the_body_its_value_survives(body: Any, status: int, escaped: bool) -> None:
    raw = json.dumps(
        {"custom_id": "n-1", "response": {"status_code": status, "body": body}}, ensure_ascii=escaped
    )

    answer = parse(raw.encode("utf-8", "surrogatepass"))

    if 100 <= status < 600 and body is not None:
        assert answer.body is not None
        assert json.loads(answer.body) == body
    assert answer.ok == (200 <= status < 300 and body is not None)


@given(st.binary(max_size=200) | st.text().map(str.encode))
@example(b'{"custom_id":"\\ud8')
def test_any_bytes_are_an_answer_or_invalid(raw: bytes) -> None:
    key = RESULTS.read_key(raw)
    try:
        answer = parse(raw)
    except Invalid:
        return
    assert key is None or isinstance(key, str)
    for part in (answer.body, answer.error):
        if part is not None:
            json.loads(part.decode())


SPELLINGS = [
    line(CHAT),
    line({**CHAT, "choices": 5}),
    line({**CHAT, "choices": [{"message": {"content": ["x"]}}]}),
    line(CHAT, status=429),
    line(CHAT, status=204),
    line(CHAT, more=1),
    line(CHAT).replace(b": ", b":").replace(b", ", b","),
    line(CHAT).replace(b'}}, "error"', b'} }, "error"'),
    line(CHAT).replace(b"req_1", b'req\\"1'),
    line(CHAT).replace(b"req_1", b"\x01"),
    line(CHAT).replace("é".encode(), b"\xe9"),
    line(CHAT).replace("é".encode(), rb"\ud83d"),
]

ODD = [
    *(line(body) for body in (None, [], "x", 5, {})),
    *(line(CHAT, status=status) for status in (0, 199, 299, 300)),
    *(line(CHAT, error=error) for error in ({}, "x", {"code": "batch_expired"})),
    *(line(CHAT).replace(b'"req_1"', said) for said in (b"null", b"5", b"{}", b"[1]", b"1.5")),
    line(CHAT).replace(b"200", b"200.0"),
    line(CHAT, response=None),
    line(CHAT) + line(CHAT),
    line(CHAT).replace(b'"error": null', b'"error": null, "custom_id": 5'),
    line(CHAT).replace(b'"error": null', b'"error": null, "response": {"status_code": 500}'),
]


@given(
    st.sampled_from(SPELLINGS + ODD),
    st.lists(st.tuples(st.integers(0, 2_000), st.binary(max_size=2)), max_size=2),
)
def test_one_look_finds_what_reading_in_full_finds(raw: bytes, changes: list[tuple[int, bytes]]) -> None:
    for at, put in changes:
        raw = raw[:at] + put + raw[at + len(put) :]

    key = RESULTS.read_success(raw)
    plain = result._plain_answer(raw)

    if key is not None:
        assert (key, True) == (RESULTS.read_key(raw), RESULTS.parse_result(raw).ok)
        assert parse(raw).ok
    if plain is not None:
        assert plain == result._answer(result._read(raw))


@pytest.mark.parametrize(
    ("raw", "plain"), list(zip(SPELLINGS, [1, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0], strict=True))
)
def test_ordinary_lines_need_one_look(raw: bytes, plain: int) -> None:
    assert (result._plain_answer(raw) is not None) == plain


@pytest.mark.parametrize("raw", [*SPELLINGS[:3], *SPELLINGS[4:9], line({}), line(CHAT, status=299)])
def test_success_shows_at_one_look(raw: bytes) -> None:
    assert RESULTS.read_success(raw) == "abcdefghij-12"


@given(st.data())
def test_a_cut_line_is_never_a_success(data: st.DataObject) -> None:
    raw = line(CHAT)
    cut = raw[: data.draw(st.integers(0, len(raw) - 1))]

    with pytest.raises(Invalid):
        parse(cut)


@given(st.data())
def test_a_changed_byte_never_breaks_anything(data: st.DataObject) -> None:
    raw = bytearray(line(CHAT))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))

    try:
        answer = parse(bytes(raw))
    except Invalid:
        return
    if answer.body is not None:
        json.loads(answer.body.decode())
