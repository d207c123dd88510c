"""Segments of line events, as the reconciler emits them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from floopy_common.domain.ids import line_id
from floopy_common.domain.line import LineStatus
from floopy_common.events.lines import (
    Content,
    LineCompleted,
    LineCost,
    LineFailure,
    LineTiming,
    LineUsage,
    SegmentRef,
    encode_line,
    line_event,
)

CREATED = datetime(2026, 11, 24, 12, 0, 0, 250_000, tzinfo=UTC)
COMPLETED = datetime(2026, 11, 24, 13, 59, 59, 999_000, tzinfo=UTC)
HEADERS = [("content-type", b"application/cloudevents+json")]

Line = tuple[bytes, bytes]
"""Key and value."""


def make_line(
    batch_id: str, line_no: int, *, segment: SegmentRef, segments: int = 1, **changes: Any
) -> LineCompleted:
    """A succeeded line; every third was answered by another model."""
    model = "gpt-4o" if line_no % 3 == 0 else "gpt-4o-mini"
    line = LineCompleted(
        source="batch",
        org_id="org_1",
        api_key_id="key_1",
        batch_id=batch_id,
        segments=segments,
        segment=segment,
        line_id=line_id(batch_id, line_no),
        line_no=line_no,
        custom_id=f"mine-{line_no}",
        provider="openai",
        model=model,
        endpoint="/v1/chat/completions",
        status=LineStatus.SUCCEEDED,
        status_code=200,
        error=None,
        finish_reason="stop",
        usage=LineUsage(100 + line_no, 10, 20, 5, 120 + line_no),
        cost=LineCost(1_000 + line_no, None, "genai-prices==1"),
        timing=LineTiming(CREATED, CREATED, COMPLETED),
        session_id="session_1",
        content_policy="reference",
        request=Content("blob_in", 200 * line_no, 180, "Say hello"),
        response=Content("blob_out", 300 * line_no, 280, "Hello"),
    )
    return msgspec.structs.replace(line, **changes)


def failed(line: LineCompleted, status: LineStatus = LineStatus.FAILED) -> LineCompleted:
    """The same line without an answer."""
    ran = status is LineStatus.FAILED
    return msgspec.structs.replace(
        line,
        status=status,
        status_code=400 if ran else None,
        error=LineFailure(None, None) if ran else LineFailure(f"batch_{status}", "not run"),
        finish_reason=None,
        usage=None,
        cost=LineCost(0, None, None),
        response=Content("blob_err", 300 * line.line_no, 280, None) if ran else None,
    )


def make_segment(batch_id: str, lines: int = 100, *, no: int = 0, segments: int = 1) -> list[LineCompleted]:
    """A segment of `lines` lines, the first of which follows on the last one of the segment before."""
    first = no * lines + 1
    segment = SegmentRef(no, first, first + lines - 1, lines)
    return [
        make_line(batch_id, number, segment=segment, segments=segments)
        for number in range(first, first + lines)
    ]


def encoded(lines: Sequence[LineCompleted]) -> list[Line]:
    return [(line.line_id.encode(), encode_line(line_event(line, COMPLETED))) for line in lines]
