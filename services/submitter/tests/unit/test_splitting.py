"""Where a shard is cut in two, and that both halves together are what it was."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from floopy_common.providers.anthropic.refusal import unsupported_value
from floopy_submitter.core.input import Judged, Measured, RefusedLine
from floopy_submitter.core.refusing import partition
from floopy_submitter.core.splitting import decision, first_half, second_half

SIZES = st.lists(st.integers(1, 1_000), min_size=2, max_size=40)


def shard_of(lines: list[Measured], **fields: Any) -> dict[str, Any]:
    names = ("batch_id", "org_id", "plan_id", "provider", "account_id", "endpoint", "model")
    return {
        **dict.fromkeys(names, "x"),
        "_id": "plan:00003",
        "no": 3,
        "group": 0,
        "kind": "primary",
        "depth": 0,
        "parent": None,
        "ranges": [[line.line_no, line.line_no] for line in lines],
        "lines": len(lines),
        "bytes": sum(line.size for line in lines),
        "segments": sorted({line.segment for line in lines}),
        "split": decision(lines),
        **fields,
    }


def measured(sizes: list[int]) -> list[Measured]:
    """Lines 10, 20, ..., three to a segment."""
    return [Measured(10 * number, size, number // 3) for number, size in enumerate(sizes, start=1)]


@given(SIZES)
def test_no_line_is_lost_or_doubled_and_neither_half_is_empty(sizes: list[int]) -> None:
    shard = shard_of(measured(sizes))

    first, second = first_half(shard), second_half(shard)

    assert first["ranges"] + second["ranges"] == shard["ranges"]
    for name in ("lines", "bytes"):
        assert first[name] + second[name] == shard[name]
        assert first[name] > 0
        assert second[name] > 0
    assert sorted({*first["segments"], *second["segments"]}) == shard["segments"]


@given(SIZES)
def test_neither_half_has_more_than_half_of_the_bytes_and_a_line(sizes: list[int]) -> None:
    split = decision(measured(sizes))

    largest = max(split["first"]["bytes"], split["second"]["bytes"])
    assert largest <= sum(sizes) / 2 + max(sizes)


def test_a_range_that_spans_the_cut_is_cut() -> None:
    lines = [Measured(number, 10, 0) for number in range(1, 9)]
    shard = shard_of(lines, ranges=[[1, 3], [4, 8]])
    shard["split"]["after"] = 5

    assert first_half(shard)["ranges"] == [[1, 3], [4, 5]]
    assert second_half(shard)["ranges"] == [[6, 8]]


@given(st.lists(st.booleans(), min_size=2, max_size=40).filter(lambda sent: len(set(sent)) == 2))
def test_what_is_refused_of_a_shard_and_what_is_left_are_all_of_it(sent: list[bool]) -> None:
    """Lines 10, 12, 14 ... in ranges of three, the lines between being other shards'."""
    lines = [(8 + 2 * number, number // 7) for number in range(1, len(sent) + 1)]
    numbers = [line for line, _ in lines]
    ranges = [[part[0], part[-1]] for part in (numbers[at : at + 3] for at in range(0, len(numbers), 3))]
    judged = Judged([], [])
    for (line, segment), is_sent in zip(lines, sent, strict=True):
        if is_sent:
            judged.sent.append((line, segment))
        else:
            judged.refused.append(RefusedLine(line, segment, unsupported_value("n", "is not one.").refused))
    shard = shard_of(measured([1, 1]), ranges=ranges, tokens_estimate=9)
    shard["split"] = partition(shard, judged)

    first, second = first_half(shard), second_half(shard)

    assert [line for line in numbers if holds(first, line)] == [line for line, _ in judged.sent]
    assert [line for line in numbers if holds(second, line)] == [refused[0] for refused in judged.refused]
    assert first["lines"] + second["lines"] == len(sent)
    assert all(any(low <= line <= high for low, high in ranges) for line in numbers if holds(first, line))
    assert first["ranges"] == sorted(first["ranges"])


def holds(half: dict[str, Any], line: int) -> bool:
    return any(first <= line <= last for first, last in half["ranges"])


def test_the_other_half_begins_anew_and_each_split_has_its_own() -> None:
    shard = shard_of(measured([1, 1, 1, 1]), attempts=[{"id": "att_1"}], splits=2, waiting={"reason": "x"})

    other = second_half(shard)

    assert other["_id"] == "plan:00003.s3"
    assert first_half(shard)["splits"] == 3
    assert (other["state"], other["attempts"], other["waiting"], other["kind"]) == (
        "planned",
        [],
        None,
        "primary",
    )
    assert "split" not in other
    assert second_half(shard) == other
