"""An input file as a whole: its faults in order, blank lines and ends of lines, little memory at any size."""

import json
import tracemalloc
from typing import Any

import pytest
from floopy_batches.scanning import (
    CHAT,
    EMBEDDINGS,
    MIB,
    all_taken,
    encoded,
    request,
    scan_bytes,
    scan_rows,
    scanned,
)

from floopy_common.domain.index import unpack_input
from floopy_submitter.core.cutting import SegmentLimits, ShardLimits
from floopy_submitter.core.faults import MAX_FAULTS
from floopy_submitter.core.scan import InputScan


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
