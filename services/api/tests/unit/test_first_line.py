"""The first line that is not blank decides whether a file can be a batch's input."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floopy_api.core.first_line import FirstLine


def judged(*pieces: bytes) -> bool:
    line = FirstLine()
    for piece in pieces:
        line.feed(piece)
    return line.is_object()


GOOD = [
    b"{}",
    b'{"a": 1}\nnot json at all',
    b"\xef\xbb\xbf{}\n",
    b"\r\n \t\n\n{}\r\n",
    b"  {} \n",
    '{"text": "one\u2028line"}\n'.encode(),
    b'{"a":' + b"9" * 24 + b"}",
]
BAD = [
    b"",
    b"\n\n  \n",
    b"[]\n{}",
    b"1\n",
    b'"text"',
    b"{broken\n{}",
    b"{}{}\n",
    b"\xef\xbb\xbf",
    b"\xef\xbb",
    '{"a": 1}'.encode("utf-16"),
    b'{"a": "\xff"}',
    b'{"a": NaN}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
]


@pytest.mark.parametrize("content", GOOD)
def test_an_object_is_taken(content: bytes) -> None:
    assert judged(content)


@pytest.mark.parametrize("content", BAD)
def test_anything_else_is_refused(content: bytes) -> None:
    assert not judged(content)


@given(content=st.sampled_from(GOOD + BAD[:11]), cuts=st.lists(st.integers(0, 40), max_size=6))
def test_where_the_bytes_are_cut_does_not_matter(content: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(content)]
    pieces = [content[start:end] for start, end in pairwise(edges)]

    assert judged(*pieces) == judged(content)


def test_a_huge_first_line_is_judged_by_its_first_character() -> None:
    filler = b"x" * 65_536

    assert judged(b'{"a": "', *[filler] * 40)
    assert not judged(b'["', *[filler] * 40)


def test_blank_lines_are_not_kept() -> None:
    line = FirstLine()
    for _ in range(1_000):
        line.feed(b"\n" * 1_000)

    assert len(line._seen) == 0
