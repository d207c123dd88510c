"""Whatever a provider does to its results, no line is answered twice and none by somebody else's answer."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from floopy_common.domain.index import (
    FLAG_OK,
    FLAG_OVERSIZED,
    FLAG_RETRYABLE,
    SOURCE_ERROR,
    SOURCE_OUTPUT,
)
from floopy_common.providers.anthropic.result import AnthropicResults
from floopy_common.providers.openai.result import OpenAiResults
from floopy_common.providers.port import ProviderStatus, ResultFormat
from floopy_reconciler.core import result_lines
from floopy_reconciler.core.look import Look
from floopy_reconciler.core.result_lines import LineCutter, PhysicalLine
from floopy_reconciler.core.results import Expected, Joined, ResultScan, join_results
from floopy_reconciler.core.settle import ended_as, is_whole

NONCE = "0123456789"
LINES = frozenset(range(1, 9))


def make_line(number: int, *, text: str = "hi", status: int = 200, nonce: str = NONCE) -> bytes:
    body: dict[str, Any] = {"model": "m", "choices": [{"message": {"content": text}}]}
    if status >= 400:
        body = {"error": {"message": text, "code": "x", "type": "x", "param": None}}
    response = {"status_code": status, "request_id": "r", "body": body}
    line = {"id": "i", "custom_id": f"{nonce}-{number}", "response": response, "error": None}
    return json.dumps(line, ensure_ascii=False).encode()


def make_never_run(number: int, code: str = "batch_expired") -> bytes:
    error = {"code": code, "message": "Too late."}
    return json.dumps({"custom_id": f"{NONCE}-{number}", "response": None, "error": error}).encode()


def as_file(lines: Sequence[bytes], ending: bytes = b"\n") -> bytes:
    return b"".join(line + ending for line in lines)


def in_blocks(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def join(
    output: bytes, error: bytes = b"", lines: frozenset[int] = LINES, *, block: int = 1_000, **more: bool
) -> Joined:
    scans = []
    for source, data in ((SOURCE_OUTPUT, output), (SOURCE_ERROR, error)):
        scan = ResultScan(source, Expected(NONCE, lines), OpenAiResults())
        for piece in in_blocks(data, block):
            scan.feed(piece)
        assert scan.length == len(data)
        scans.append(scan)
    return join_results(scans, **more)


def lines_in(data: bytes, block: int) -> list[PhysicalLine]:
    cutter = LineCutter()
    found = [line for piece in in_blocks(data, block) for line in cutter.feed(piece)]
    last = cutter.end()
    return found if last is None else [*found, last]


def bytes_of(joined: Joined, line: int, output: bytes, error: bytes = b"") -> bytes:
    entry = joined.entries[line]
    return (error if entry.source else output)[entry.offset : entry.offset + entry.length]


SPOILT = st.one_of(
    st.just(b"{"),
    st.just(b"not json"),
    st.just(b'{"custom_id": 5}'),
    st.just(b"null"),
    st.binary(max_size=30).filter(lambda raw: b"\n" not in raw),
    st.integers(1, 8).map(lambda n: make_line(n)[:-7]),
    st.integers(1, 8).map(lambda n: make_line(n, nonce="ffffffffff")),
    st.integers(9, 99).map(make_line),
    st.just(make_line(1).replace(b"-1", b"-01")),
    st.just(make_line(1).replace(b"-1", b"--1")),
    st.just("{0}-١".encode()),
)
GOOD = st.builds(
    make_line, st.integers(1, 8), text=st.sampled_from(["a", "b"]), status=st.sampled_from([200, 400, 500])
)


@given(
    st.lists(st.one_of(GOOD, SPOILT), max_size=20),
    st.lists(st.one_of(GOOD, SPOILT), max_size=20),
    st.sampled_from([b"\n", b"\r\n", b"\n\n", b" \n"]),
    st.booleans(),
)
def test_every_line_is_answered_at_most_once_and_by_its_own_bytes(
    out: list[bytes], err: list[bytes], ending: bytes, cut: bool
) -> None:
    output, error = as_file(out, ending), as_file(err, ending)
    if cut:
        output = output[: len(output) // 2]

    joined = join(output, error)

    entries = joined.in_order()
    assert [entry.line_no for entry in entries] == sorted({entry.line_no for entry in entries})
    assert {entry.line_no for entry in entries} <= LINES
    for entry in entries:
        line = json.loads(bytes_of(joined, entry.line_no, output, error))
        assert line["custom_id"] == f"{NONCE}-{entry.line_no}"
        assert bool(entry.flags & FLAG_OK) is (line["response"]["status_code"] == 200)


@given(st.permutations(sorted(LINES)), st.lists(st.sampled_from(sorted(LINES)), max_size=8))
def test_order_and_repeats_change_nothing(order: list[int], repeated: list[int]) -> None:
    output = as_file([make_line(number) for number in order + repeated])

    joined = join(output)

    assert set(joined.entries) == LINES
    assert joined.quarantined.duplicate == len(repeated)
    assert joined.present == len(LINES)
    assert all(bytes_of(joined, n, output) == make_line(n) for n in LINES)


@given(st.sets(st.sampled_from(sorted(LINES))), st.lists(SPOILT, max_size=5))
def test_good_lines_survive_whatever_stands_between_them(numbers: set[int], spoilt: list[bytes]) -> None:
    output = as_file([*spoilt, *(make_line(number, text="good") for number in sorted(numbers)), *spoilt])

    joined = join(output)

    assert numbers <= set(joined.entries)


@pytest.mark.parametrize(
    ("ending", "tail"), [(b"\n", b""), (b"\r\n", b""), (b"\n\n\n", b""), (b"\n", b"   "), (b"\n", b"\r")]
)
def test_line_endings_and_blank_lines_do_not_matter(ending: bytes, tail: bytes) -> None:
    joined = join(as_file([make_line(1), make_line(2)], ending) + tail)

    assert set(joined.entries) == {1, 2}
    assert joined.quarantined == type(joined.quarantined)()


def test_last_line_needs_no_newline() -> None:
    joined = join(as_file([make_line(1)]) + make_line(2))

    assert set(joined.entries) == {1, 2}
    assert not joined.truncated


def test_byte_order_mark_is_no_part_of_the_first_line() -> None:
    output = b"\xef\xbb\xbf" + as_file([make_line(1)])

    assert bytes_of(join(output), 1, output) == make_line(1)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\x0b", "\x1c"])
def test_only_a_newline_ends_a_line(separator: str) -> None:
    raw = make_line(1, text=f"a{separator}b")
    output = as_file([raw, make_line(2)])

    joined = join(output)

    assert set(joined.entries) == {1, 2}
    assert bytes_of(joined, 1, output) == raw


def test_cut_off_line_means_truncated_and_a_spoilt_one_in_the_middle_does_not() -> None:
    assert join(as_file([make_line(1)]) + make_line(2)[:20]).truncated
    joined = join(as_file([make_line(2)[:20], make_line(1)]))
    assert not joined.truncated
    assert joined.quarantined.malformed == 1


def test_first_answer_is_kept() -> None:
    output = as_file([make_line(1, text="first"), make_line(1, text="second")])

    assert b"first" in bytes_of(join(output), 1, output)


@pytest.mark.parametrize("status", [400, 500])
def test_success_is_kept_over_a_failure_in_the_other_file(status: int) -> None:
    good, bad = as_file([make_line(1)]), as_file([make_line(1, status=status)])

    assert join(good, bad).entries[1].flags == FLAG_OK
    assert join(bad, good).entries[1].flags == FLAG_OK


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_failures_in_passing_are_retryable(status: int) -> None:
    joined = join(b"", as_file([make_line(3, status=status), make_line(4, status=400)]))

    assert joined.entries[3].flags == FLAG_RETRYABLE
    assert joined.retryable() == [3]


@pytest.mark.parametrize("code", ["batch_expired", "batch_cancelled"])
def test_lines_that_never_ran_are_present_without_an_answer(code: str) -> None:
    joined = join(b"", as_file([make_never_run(5, code)]), keep_never_run=False)

    assert joined.present == 1
    assert joined.entries == {}


def test_lines_that_never_ran_in_a_finished_batch_may_be_tried_again() -> None:
    joined = join(b"", as_file([make_never_run(5)]))

    assert joined.retryable() == [5]


def test_oversized_line_is_found_and_only_referred_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_lines, "MAX_RESULT_LINE", 10_000)
    huge = make_line(1, text="x" * 20_000)
    hidden = (
        b'{"pad":"' + b"y" * 9_000 + b'","custom_id":"%b-2","z":"' % NONCE.encode() + b"z" * 9_000 + b'"}'
    )

    joined = join(as_file([huge, hidden, make_line(3)]))

    assert joined.entries[1].flags == FLAG_OVERSIZED
    assert joined.entries[1].length == len(huge)
    assert (joined.quarantined.oversized, joined.quarantined.unknown) == (1, 1)
    assert set(joined.entries) == {1, 3}


@pytest.mark.parametrize(
    ("output", "foreign"),
    [
        (as_file([make_line(1, nonce="ffffffffff"), make_line(2, nonce="ffffffffff")]), True),
        (as_file([make_line(1, nonce="ffffffffff"), b"{broken"]), True),
        (as_file([make_line(1, nonce="ffffffffff"), make_line(2)]), False),
        (as_file([b"{broken"]), False),
        (b"", False),
    ],
)
def test_only_strangers_means_somebody_elses_batch(output: bytes, foreign: bool) -> None:
    assert join(output).all_foreign is foreign


@given(
    st.lists(st.sampled_from([b"\xef\xbb\xbf", b"\n", b"\r", b" ", b"a", b"bcd"])).map(b"".join),
    st.integers(1, 40),
    st.integers(3, 9),
)
@example(b"a\nbcdbcd\nbcd\n", 40, 3)
def test_physical_lines_are_the_non_blank_lines(data: bytes, block: int, most: int) -> None:
    bom = b"\xef\xbb\xbf"
    expected = [line for line in data.removeprefix(bom).split(b"\n") if len(line) > most or line.strip()]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(result_lines, "MAX_RESULT_LINE", most)
        patched.setattr(result_lines, "_EDGE", 2)
        found = lines_in(data, block)

    assert [data[line.start : line.stop] for line in found] == expected
    assert [line.raw for line in found] == [None if len(line) > most else line for line in expected]
    assert [line.edges for line in found] == [
        (line[:2], line[-2:]) if len(line) > most else () for line in expected
    ]
    ends = [data[line.stop : line.stop + 1] == b"\n" for line in found]
    assert [line.closed for line in found] == ends


@given(st.lists(st.one_of(GOOD, SPOILT), max_size=9), st.integers(1, 400))
def test_how_the_bytes_arrive_changes_nothing(lines: list[bytes], block: int) -> None:
    output = as_file(lines)

    assert join(output, block=block) == join(output, block=len(output) + 1)


def deeper(calls: int, call: Callable[[], Any]) -> Any:
    return deeper(calls - 1, call) if calls else call()


@pytest.mark.parametrize("result_format", [OpenAiResults(), AnthropicResults()])
def test_nested_answer_that_counts_here_can_be_rendered_many_calls_further_down(
    result_format: ResultFormat,
) -> None:
    found = set()
    for depth in range(500, 1_100):
        nested = b"[" * depth + b"]" * depth
        raw = RESULT_WITH[type(result_format)] % (NONCE.encode(), nested)
        scan = ResultScan(SOURCE_OUTPUT, Expected(NONCE, LINES), result_format)
        scan.feed(raw + b"\n")
        found.add(len(scan.entries))
        if scan.entries:
            answer, _ = deeper(80, lambda raw=raw: result_format.parse_answer(raw, b"{}", 0))  # type: ignore[misc]
            assert answer.ok

    assert found == {0, 1}


MESSAGE = (
    b'"id":"m","model":"m","role":"assistant","type":"message","stop_reason":"tool_use",'
    b'"usage":{"input_tokens":1,"output_tokens":1},'
    b'"content":[{"type":"tool_use","id":"t","name":"n","input":{"x":%b}}]'
)
RESULT_WITH = {
    OpenAiResults: b'{"custom_id":"%b-1","response":{"status_code":200,"body":{"x":%b}},"error":null}',
    AnthropicResults: b'{"custom_id":"%b-1","result":{"type":"succeeded","message":{' + MESSAGE + b"}}}",
}


def make_look(status: ProviderStatus, accounted: int) -> Look:
    counts = {"total": 8, "completed": accounted, "failed": 0}
    return Look(status, counts, {"output": "o", "error": None}, (), changed=True, regressed=False)


@pytest.mark.parametrize(
    ("status", "accounted", "present", "whole"),
    [
        (ProviderStatus.COMPLETED, 8, 8, True),
        (ProviderStatus.COMPLETED, 8, 7, False),
        (ProviderStatus.COMPLETED, 0, 7, False),
        (ProviderStatus.CANCELLED, 3, 3, True),
        (ProviderStatus.CANCELLED, 3, 2, False),
        (ProviderStatus.EXPIRED, 99, 8, True),
        (ProviderStatus.EXPIRED, 0, 0, True),
    ],
)
def test_results_are_whole_when_all_that_must_be_there_is(
    status: ProviderStatus, accounted: int, present: int, whole: bool
) -> None:
    look = make_look(status, accounted)

    assert is_whole(look, Joined(present=present), 8) is whole
    assert not is_whole(look, Joined(present=8, truncated=True), 8)


@pytest.mark.parametrize(
    ("status", "ending", "gone", "ended"),
    [
        (ProviderStatus.COMPLETED, None, False, "finished"),
        (ProviderStatus.COMPLETED, "expired", False, "finished"),
        (ProviderStatus.CANCELLED, None, False, "cancelled"),
        (ProviderStatus.CANCELLED, "expired", False, "expired"),
        (ProviderStatus.EXPIRED, "cancelled", False, "cancelled"),
        (ProviderStatus.EXPIRED, None, False, "expired"),
        (ProviderStatus.COMPLETED, None, True, "lost"),
    ],
)
def test_our_own_reason_to_end_explains_unanswered_lines(
    status: ProviderStatus, ending: str | None, gone: bool, ended: str
) -> None:
    assert ended_as(make_look(status, 0), {"ending": ending}, gone=gone).value == ended
