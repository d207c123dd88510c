"""Which bytes a Range asks for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floopy_api.core.ranges import Span, matches, span_of
from floopy_api.errors import RangeUnsatisfiable

WHOLE = Span(0, 100, 100, partial=False)


@pytest.mark.parametrize(
    ("header", "offset", "length"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=10-", 10, 90),
        ("bytes=90-1000", 90, 10),
        ("bytes=-1", 99, 1),
        ("bytes=-1000", 0, 100),
        ("bytes= 5-6 ", 5, 2),
    ],
)
def test_one_range_is_answered_partially(header: str, offset: int, length: int) -> None:
    assert span_of(100, header) == Span(offset, length, 100, partial=True)


@pytest.mark.parametrize(
    "header",
    [None, "", "bytes=", "bytes=-", "bytes=5-4", "bytes=0-1,3-4", "lines=0-1", "bytes=a-b", "bytes=٠-١"],
)
def test_anything_else_gets_the_whole_file(header: str | None) -> None:
    assert span_of(100, header) == WHOLE


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_a_range_behind_the_end_is_refused(header: str) -> None:
    with pytest.raises(RangeUnsatisfiable):
        span_of(100, header)


@pytest.mark.parametrize("header", ["bytes=0-0", "bytes=0-", "bytes=-1"])
def test_an_empty_file_has_no_range(header: str) -> None:
    with pytest.raises(RangeUnsatisfiable):
        span_of(0, header)


@given(size=st.integers(1, 1000), first=st.integers(0, 999), last=st.integers(0, 2000))
def test_a_span_lies_within_the_file(size: int, first: int, last: int) -> None:
    try:
        span = span_of(size, f"bytes={first}-{last}")
    except RangeUnsatisfiable:
        assert first >= size
        return
    assert span.offset >= 0
    assert span.length > 0
    assert span.offset + span.length <= size


def test_content_range_is_inclusive() -> None:
    assert span_of(100, "bytes=10-19").content_range == "bytes 10-19/100"


@pytest.mark.parametrize("header", ['"abc"', 'W/"abc"', '"x", "abc"', "*"])
def test_an_entity_tag_is_recognised(header: str) -> None:
    assert matches('"abc"', header)


@pytest.mark.parametrize("header", [None, '"x"', "abc"])
def test_another_entity_tag_is_not(header: str | None) -> None:
    assert not matches('"abc"', header)
