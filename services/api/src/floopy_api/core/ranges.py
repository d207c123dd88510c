"""Range and conditional headers of a download (RFC 9110), as pure decisions."""

import re
from dataclasses import dataclass

from floopy_api.errors import RangeUnsatisfiable

_SINGLE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.ASCII)


@dataclass(frozen=True)
class Span:
    """The bytes of a file that are sent; `partial` says whether they are an answer to a Range."""

    offset: int
    length: int
    size: int
    partial: bool

    @property
    def content_range(self) -> str:
        return f"bytes {self.offset}-{self.offset + self.length - 1}/{self.size}"


def span_of(size: int, header: str | None) -> Span:
    """What to send of `size` bytes; RangeUnsatisfiable when none of the range is there.

    Anything but one well-formed range of bytes is ignored, as the RFC allows: the whole file is sent.
    """
    whole = Span(0, size, size, partial=False)
    found = None if header is None else _SINGLE.fullmatch(header)
    if found is None or found.groups() == ("", ""):
        return whole
    first, last = found.groups()
    if first == "":
        return _suffix(size, int(last))
    start = int(first)
    if last != "" and int(last) < start:
        return whole
    if start >= size:
        raise RangeUnsatisfiable(size)
    end = size if last == "" else min(int(last) + 1, size)
    return Span(start, end - start, size, partial=True)


def _suffix(size: int, count: int) -> Span:
    length = min(count, size)
    if length == 0:
        raise RangeUnsatisfiable(size)
    return Span(size - length, length, size, partial=True)


def matches(etag: str, header: str | None) -> bool:
    """Whether an If-None-Match names this (quoted) entity tag."""
    if header is None:
        return False
    named = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in named or etag in named
