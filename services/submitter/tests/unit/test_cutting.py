"""Cuts: whatever the lines, each is in one segment and one shard, and no bound is broken."""

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floopy_submitter.core.cutting import (
    OPENAI_LIMITS,
    Cutter,
    Segment,
    SegmentLimits,
    Shard,
    ShardLimits,
)


class Line(NamedTuple):
    line_no: int
    offset: int
    length: int
    group: int
    size: int
    inputs: int


@st.composite
def line_lists(draw: st.DrawFn) -> list[Line]:
    lines, line_no, offset = [], 0, 0
    for _ in range(draw(st.integers(1, 60))):
        line_no += draw(st.integers(1, 3))
        offset += draw(st.integers(0, 30))
        length = draw(st.integers(1, 40))
        extra = draw(st.integers(0, 10))
        group = draw(st.integers(0, 2))
        lines.append(Line(line_no, offset, length, group, length + extra, draw(st.integers(1, 5))))
        offset += length + 1
    return lines


segment_limits = st.builds(SegmentLimits, st.integers(1, 20), st.integers(1, 300))
shard_limits = st.builds(ShardLimits, st.integers(1, 40), st.integers(1, 600), st.integers(1, 60))


def cut(lines: list[Line], segment: SegmentLimits, shard: ShardLimits) -> tuple[list[Segment], list[Shard]]:
    cutter = Cutter(segment, shard)
    for line in lines:
        cutter.add(*line)
    return cutter.finish()


def plain(count: int, length: int = 100) -> list[Line]:
    return [Line(no, (no - 1) * (length + 1), length, 0, length, 1) for no in range(1, count + 1)]


@settings(deadline=None)
@given(line_lists(), segment_limits, shard_limits)
def test_every_line_is_in_exactly_one_segment(
    lines: list[Line], segment: SegmentLimits, shard: ShardLimits
) -> None:
    segments, _ = cut(lines, segment, shard)

    assert [s.no for s in segments] == list(range(len(segments)))
    members = [lines[s.index_from : s.index_to] for s in segments]
    assert [line for part in members for line in part] == lines
    for found, part in zip(segments, members, strict=True):
        assert (found.first_line, found.last_line) == (part[0].line_no, part[-1].line_no)
        assert found.bytes == part[-1].offset + part[-1].length - part[0].offset
        assert found.lines <= segment.max_lines
        assert found.bytes <= segment.max_bytes or found.lines == 1


@settings(deadline=None)
@given(line_lists(), segment_limits, shard_limits)
@pytest.mark.surface("8 a batch above the limits of a provider is split")
def test_every_line_is_in_exactly_one_shard(
    lines: list[Line], segment: SegmentLimits, shard: ShardLimits
) -> None:
    segments, shards = cut(lines, segment, shard)

    found = [(line, s) for s in shards for line in lines if _holds(s, line)]
    assert sorted(line for line, _ in found) == lines
    for each in shards:
        part = [line for line in lines if _holds(each, line)]
        assert each.lines == len(part)
        assert each.bytes == sum(line.size for line in part)
        assert each.inputs == sum(line.inputs for line in part)
        touched = {s.no for s in segments for line in part if s.first_line <= line.line_no <= s.last_line}
        assert each.segments == sorted(touched)


@settings(deadline=None)
@given(line_lists(), segment_limits, shard_limits)
def test_no_shard_is_above_its_bounds_but_a_lone_line(
    lines: list[Line], segment: SegmentLimits, shard: ShardLimits
) -> None:
    _, shards = cut(lines, segment, shard)

    for each in shards:
        assert each.lines <= shard.max_lines
        assert each.lines == 1 or (each.bytes <= shard.max_bytes and each.inputs <= shard.max_inputs)


@settings(deadline=None)
@given(line_lists(), segment_limits, shard_limits)
def test_a_shard_ends_early_only_where_a_segment_does(
    lines: list[Line], segment: SegmentLimits, shard: ShardLimits
) -> None:
    segments, shards = cut(lines, segment, shard)

    last_of_segments = {s.last_line for s in segments}
    for each in shards:
        mine = [line for line in lines if line.group == each.group]
        behind = [line for line in mine if line.line_no > each.last_line]
        if behind and each.fits(behind[0].size, behind[0].inputs, shard):
            following = [line for line in lines if each.last_line < line.line_no < behind[0].line_no]
            between = {each.last_line, *(line.line_no for line in following)}
            assert between & last_of_segments


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(1, 60), st.integers(1, 40))
def test_equal_lines_are_all_cut_whatever_the_sizes(count: int, segment: int, shard: int) -> None:
    _, shards = cut(plain(count), SegmentLimits(segment, 10**9), ShardLimits(shard, 10**9))

    assert [s.first_line for s in shards] == [1, *(s.last_line + 1 for s in shards[:-1])]
    assert shards[-1].last_line == count
    for each in shards:
        assert each.lines == each.last_line - each.first_line + 1 <= shard
        first, last = ((line - 1) // segment for line in (each.first_line, each.last_line))
        assert each.segments == list(range(first, last + 1))


def _holds(shard: Shard, line: Line) -> bool:
    return line.group == shard.group and shard.first_line <= line.line_no <= shard.last_line


def test_a_shard_ends_with_a_segment_where_that_wastes_little() -> None:
    _, shards = cut(plain(120, 95), SegmentLimits(9, 1_000_000), ShardLimits(50_000, 95 * 100))

    assert [s.lines for s in shards] == [99, 21]
    assert shards[0].segments[-1] + 1 == shards[1].segments[0]


def test_a_shard_is_filled_where_ending_with_a_segment_would_waste_much() -> None:
    _, shards = cut(plain(40), SegmentLimits(4, 1_000_000), ShardLimits(10, 1_000_000))

    assert [s.lines for s in shards] == [10, 10, 10, 10]


def test_a_gap_in_the_file_ends_a_segment() -> None:
    lines = [Line(1, 0, 10, 0, 10, 1), Line(5_000, 1_000_000, 10, 0, 10, 1)]

    segments, _ = cut(lines, SegmentLimits(5_000, 1_000), ShardLimits(50_000, 1_000_000))

    assert [s.bytes for s in segments] == [10, 10]


def test_a_line_above_the_bounds_stands_alone() -> None:
    lines = [Line(1, 0, 10, 0, 10, 1), Line(2, 11, 500, 0, 500, 1), Line(3, 512, 10, 0, 10, 1)]

    segments, shards = cut(lines, SegmentLimits(10, 100), ShardLimits(10, 100))

    assert [s.lines for s in segments] == [1, 1, 1]
    assert [s.lines for s in shards] == [1, 1, 1]


@pytest.mark.parametrize(("asked", "given_"), [(10**9, OPENAI_LIMITS.max_lines), (3, 3)])
def test_settings_never_exceed_the_provider(asked: int, given_: int) -> None:
    limits = ShardLimits(asked, 10**12).within(OPENAI_LIMITS)

    assert (limits.max_lines, limits.max_bytes) == (given_, OPENAI_LIMITS.max_bytes)
