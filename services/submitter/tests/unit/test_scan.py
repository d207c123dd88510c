"""What a batch's input is refused for, line by line, and what is taken however odd it looks."""

import json
import tracemalloc
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floopy_common.domain.index import unpack_input
from floopy_submitter.core.cutting import SegmentLimits, ShardLimits
from floopy_submitter.core.faults import MAX_FAULTS, Fault
from floopy_submitter.core.scan import InputScan
from floopy_submitter.core.validation import MAX_DEPTH

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
MESSAGES = [{"role": "user", "content": "Hello"}]
MIB = 1024 * 1024


def request(custom_id: str = "a", **fields: Any) -> dict[str, Any]:
    body = {"model": "gpt-4o-mini", "messages": MESSAGES}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body, **fields}


def encoded(line: Any) -> bytes:
    return line if isinstance(line, bytes) else json.dumps(line).encode()


def scanned(*lines: Any, endpoint: str = CHAT, piece: int = 64 * 1024) -> InputScan:
    return scan_bytes(b"".join(encoded(line) + b"\n" for line in lines), endpoint=endpoint, piece=piece)


def scan_bytes(content: bytes, endpoint: str = CHAT, piece: int = 64 * 1024) -> InputScan:
    scan, _ = scan_rows(content, endpoint, piece)
    return scan


def scan_rows(content: bytes, endpoint: str = CHAT, piece: int = 64 * 1024) -> tuple[InputScan, bytes]:
    scan = InputScan(endpoint, SegmentLimits(5_000, 16 * MIB), ShardLimits(50_000, 200_000_000))
    rows = [scan.feed(content[start : start + piece]) for start in range(0, len(content), piece)]
    return scan, b"".join([*rows, scan.finish()])


def the_fault(*lines: Any, endpoint: str = CHAT) -> Fault:
    """The only fault of the lines; the same behind a good line, where the short path is open."""
    [fault] = scanned(*lines, endpoint=endpoint).faults
    good = request("good", url=endpoint, body={**request()["body"], "input": "Hello"})
    [behind] = scanned(good, *lines, endpoint=endpoint).faults
    assert behind == replace(fault, line=fault.line + 1)
    return fault


def all_taken(*lines: Any) -> bool:
    """No fault in the lines, first in a file or not."""
    scans = [scanned(*lines), scanned(request("good"), *lines)]
    return all(not scan.faults for scan in scans) and scans[0].lines == len(lines)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in request().items() if key != name}


def with_body(**fields: Any) -> dict[str, Any]:
    body = {"model": "gpt-4o-mini", "messages": MESSAGES, **fields}
    return request(body={key: value for key, value in body.items() if value is not ...})


def raw_body(body: bytes) -> bytes:
    head = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":'
    return head + b'{"model":"gpt-4o-mini","messages":["Hi"],"x":' + body + b"}}"


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


@pytest.mark.parametrize("content", [b"", b"\n", b"\n \n\t\r\n", b"\xef\xbb\xbf", b"\n" * 200_000])
@pytest.mark.surface("4.4 empty_file")
def test_a_file_without_requests_is_empty_file(content: bytes) -> None:
    [fault] = scan_bytes(content).faults

    assert (fault.code, fault.line, fault.param) == ("empty_file", None, None)


@pytest.mark.surface("4.4 up to 100 errors")
def test_faults_are_ordered_by_line_and_end_at_a_hundred() -> None:
    scan = scanned(*[b"{" for _ in range(250)])

    assert [fault.line for fault in scan.faults] == list(range(1, MAX_FAULTS + 1))
    assert scan.is_hopeless


@pytest.mark.surface("4.4 a bad file of 200 MB: every fault at its line, flat memory")
def test_a_bad_file_of_200_mb_is_told_whole_and_never_held() -> None:
    scan = InputScan(CHAT, SegmentLimits(5_000, 16 * MIB), ShardLimits(50_000, 200_000_000))
    bad = {3: b"{", 30_000: encoded(request("b", url=EMBEDDINGS)), 50_000: encoded(request("7"))}
    line = encoded(request("?", body={"model": "gpt-4o-mini", "messages": "x" * 4_000})) + b"\n"
    head, tail = line.split(b"?")
    fed, rows = 0, 0

    tracemalloc.start()
    for start in range(1, 50_001, 50):
        numbers = range(start, start + 50)
        piece = b"".join(bad[n] + b"\n" if n in bad else head + b"%d" % n + tail for n in numbers)
        fed += len(piece)
        rows += len(scan.feed(piece))
    scan.finish()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert fed > 200_000_000
    assert [(fault.code, fault.line, fault.param) for fault in scan.faults] == [
        ("invalid_json_line", 3, None),
        ("invalid_url", 30_000, "url"),
        ("duplicate_custom_id", 50_000, "custom_id"),
    ]
    assert rows == 0
    assert peak < 8 * MIB


@pytest.mark.surface("4.1 lines of 1 MiB")
@pytest.mark.parametrize("piece", [64 * 1024, 3 * MIB])
def test_lines_of_a_mebibyte_are_taken_and_told_apart(piece: int) -> None:
    lines = [encoded(request(str(n), body={"model": "m", "messages": "x" * MIB})) for n in range(1, 13)]

    scan, rows = scan_rows(b"\n".join([*lines, b"{"]), piece=piece)

    assert [(fault.code, fault.line) for fault in scan.faults] == [("invalid_json_line", 13)]
    assert scan.lines == 12
    assert len(rows) > 0


def test_no_index_is_written_after_a_fault() -> None:
    _, rows = scan_rows(b"{\n" + encoded(request()))

    assert rows == b""


@pytest.mark.surface("4.1 blank lines")
def test_blank_lines_count_and_are_skipped() -> None:
    content = b"\n \r\n" + encoded(request("a")) + b"\n\n\t\n" + encoded(request("b")) + b"\n{"

    scan, _ = scan_rows(content)

    assert [(fault.code, fault.line) for fault in scan.faults] == [("invalid_json_line", 7)]
    assert scan.lines == 2


def test_two_hundred_thousand_blank_lines_cost_nothing() -> None:
    scan, rows = scan_rows(b"\n" * 200_000 + encoded(request()))

    [entry] = unpack_input(rows)
    assert (entry.line_no, entry.offset, scan.faults) == (200_001, 200_000, [])


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
def test_bom_crlf_and_a_missing_last_newline_are_taken(piece: int) -> None:
    lines = [encoded(request("a")), encoded(request("b")), encoded(request("c"))]
    content = b"\xef\xbb\xbf" + b"\r\n".join(lines)

    scan, rows = scan_rows(content, piece=piece)

    assert scan.faults == []
    entries = list(unpack_input(rows))
    assert [content[e.offset : e.offset + e.length] for e in entries] == lines
    assert [e.line_no for e in entries] == [1, 2, 3]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\u000c"])
def test_only_a_newline_byte_ends_a_line(separator: str) -> None:
    line = json.dumps(request(f"a{separator}b"), ensure_ascii=separator == "\u000c").encode()

    assert all_taken(line)


@pytest.mark.surface("4.1 duplicate keys")
def test_the_last_of_equal_keys_counts() -> None:
    good = encoded(request()).removesuffix(b"}")

    assert scanned(good + b',"url":"/v1/other"}').faults[0].code == "invalid_url"
    assert scanned(b'{"method":5,"body":7,"custom_id":null,' + encoded(request())[1:]).faults == []


@pytest.mark.surface("8 more than 50,000 lines are accepted")
def test_fifty_thousand_lines_are_not_the_limit() -> None:
    scan = scanned(*[encoded(request(str(number))) for number in range(50_001)])

    assert scan.faults == []
    assert [shard.lines for shard in scan.cut()[1]] == [50_000, 1]


@pytest.mark.surface("4.1 a line above 16 MiB, flat memory")
def test_a_line_above_16_mib_is_refused_without_being_held() -> None:
    scan = InputScan(CHAT, SegmentLimits(5_000, 16 * MIB), ShardLimits(50_000, 200_000_000))

    tracemalloc.start()
    scan.feed(encoded(request("a")) + b'\n{"custom_id":"b","x":"')
    for number in range(64 * 4):
        scan.feed(bytes([65 + number % 26]) * (MIB // 4))
    scan.feed(b'"}\n{\n' + encoded(request("c")))
    scan.finish()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert [(fault.code, fault.line) for fault in scan.faults] == [
        ("invalid_json_line", 2),
        ("invalid_json_line", 3),
    ]
    assert scan.lines == 2
    assert peak < 18 * MIB


def test_a_line_costs_little_memory_whatever_it_holds() -> None:
    scan = InputScan(CHAT, SegmentLimits(5_000, 16 * MIB), ShardLimits(50_000, 200_000_000))
    tracemalloc.start()

    for number in range(20_000):
        scan.feed(encoded(request(f"{number:0500}")) + b"\n")
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (scan.lines, scan.faults) == (20_000, [])
    assert held / 20_000 < 200


@pytest.mark.surface("4.1 a line of nearly 16 MiB")
def test_a_line_of_nearly_16_mib_is_taken() -> None:
    line = encoded(request(body={"model": "m", "messages": "x" * (15 * MIB)}))

    scan = scanned(request("a", body={"model": "m", "messages": []}), line.replace(b'"a"', b'"b"', 1))

    assert scan.faults == []


def test_long_lines_are_not_copied_again_for_every_piece() -> None:
    content = encoded(request(body={"model": "m", "messages": "x" * (15 * MIB)}))
    scan = InputScan(CHAT, SegmentLimits(5_000, 16 * MIB), ShardLimits(50_000, 200_000_000))

    tracemalloc.start()
    for start in range(0, len(content), 1024):
        scan.feed(content[start : start + 1024])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 20 * MIB


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


@pytest.mark.surface("3.1 embedding inputs are summed over the lines; 8 per batch")
@pytest.mark.parametrize(
    ("texts", "inputs"),
    [("one", 1), (["a", "b", "c"], 3), ([1, 2, 3, 4], 1), ([[1, 2], [3]], 2), ([], 1), (None, 1)],
)
def test_embeddings_count_their_inputs(texts: Any, inputs: int) -> None:
    body = {"model": "text-embedding-3-small", "input": texts}
    lines = [request(str(number), url=EMBEDDINGS, body=body) for number in range(2)]

    [shard] = scanned(*lines, endpoint=EMBEDDINGS).cut()[1]

    assert shard.inputs == 2 * inputs


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=10,
)
SPACE = st.sampled_from(["", " ", "\t", "  \r"])


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """One line, well formed or nearly, in one of the ways JSON can be written."""
    body = draw(st.dictionaries(st.text(max_size=5), JSON, max_size=3)) | {
        "model": draw(st.sampled_from(["m", "m", "m", "other", None, 5])),
        "messages": draw(st.sampled_from([[], ["Hi there"], None, "x"])),
        "stream": draw(st.sampled_from([False, True, None])),
    }
    fields = {
        "custom_id": draw(st.text(max_size=3)),
        "method": draw(st.sampled_from(["POST", "POST", "GET"])),
        "url": draw(st.sampled_from([CHAT, CHAT, EMBEDDINGS])),
        "body": body,
    }
    dropped = draw(st.sampled_from([None, None, None, *fields]))
    kept = {name: value for name, value in fields.items() if name != dropped}
    names = draw(st.permutations(list(kept)))
    separators = (f"{draw(SPACE)},{draw(SPACE)}", f"{draw(SPACE)}:{draw(SPACE)}")
    ascii_only = draw(st.booleans())
    text = json.dumps({name: kept[name] for name in names}, ensure_ascii=ascii_only, separators=separators)
    return text.replace("\n", " ").encode(errors="replace")


class AnyLine(msgspec.Struct):
    body: msgspec.Raw


@settings(deadline=None)
@given(st.lists(written(), max_size=8), st.integers(1, 200))
def test_what_is_accepted_can_be_sliced_and_the_rest_is_faults(lines: list[bytes], piece: int) -> None:
    lines = [encoded(request("the first", body={"model": "m", "messages": []})), *lines]
    content = b"\n".join(lines)

    scan, rows = scan_rows(content, piece=piece)

    assert scan.lines + len(scan.faults) == len(lines)
    if not scan.faults:
        entries = list(unpack_input(rows))
        assert [entry.line_no for entry in entries] == list(range(1, len(lines) + 1))
        for entry, line in zip(entries, lines, strict=True):
            sliced = content[entry.offset : entry.offset + entry.length]
            assert json.loads(sliced) == json.loads(line)
            raw = msgspec.json.decode(sliced, type=AnyLine).body
            assert json.loads(bytes(raw)) == json.loads(line)["body"]


@settings(deadline=None)
@given(st.lists(written(), max_size=8))
def test_the_short_path_decides_as_the_long_one_does(lines: list[bytes]) -> None:
    lines = [encoded(request("the first", body={"model": "m", "messages": []})), *lines]
    quick = scan_bytes(b"\n".join(lines))
    # so many brackets send every line the long way
    detour = b'"x":[' + b",".join([b"{}"] * 200) + b"],"
    careful = scan_bytes(b"\n".join(line.replace(b"{", b"{" + detour, 1) for line in lines))

    assert quick.faults == careful.faults
    assert quick.lines == careful.lines
    assert [shard.lines for shard in quick.cut()[1]] == [shard.lines for shard in careful.cut()[1]]
