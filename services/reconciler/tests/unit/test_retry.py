"""Retry shards: which lines, in which ranges and segments, and only while there is time."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floopy_common.domain.index import pack_input
from floopy_reconciler.core.lines import lines_of
from floopy_reconciler.core.retry import RetryPolicy, retry_shard, runs, segments_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = RetryPolicy(depth=3, window_left=600)


def make_batch(**changes: Any) -> dict[str, Any]:
    return {"status": "in_progress", "ending": None, "expires_at": NOW + timedelta(hours=1), **changes}


def make_parent(lines: list[int]) -> dict[str, Any]:
    return {
        "_id": "plan_1:00000",
        "batch_id": "batch_1",
        "org_id": "org_1",
        "plan_id": "plan_1",
        "no": 0,
        "provider": "openai",
        "account_id": "acct_1",
        "endpoint": "/v1/chat/completions",
        "model": "m",
        "group": 0,
        "depth": 0,
        "lines": len(lines),
        "bytes": 100 * len(lines),
        "tokens_estimate": 25 * len(lines),
    }


@pytest.mark.parametrize(
    ("batch", "depth", "allowed"),
    [
        (make_batch(), 0, True),
        (make_batch(), 3, False),
        (make_batch(status="cancelling"), 0, False),
        (make_batch(ending="expired"), 0, False),
        (make_batch(expires_at=NOW + timedelta(seconds=599)), 0, False),
        (make_batch(expires_at=NOW + timedelta(seconds=600)), 0, True),
    ],
)
def test_retries_only_inside_the_window_and_up_to_the_depth(
    batch: dict[str, Any], depth: int, allowed: bool
) -> None:
    assert POLICY.allows(batch, {"depth": depth}, NOW) is allowed


def test_a_repeat_makes_the_same_shard() -> None:
    lines = [1, 2, 3, 5, 8]
    parent = make_parent(lines)

    first = retry_shard(parent, [2, 5], lines, [(1, 0), (5, 1)])

    assert first == retry_shard(parent, [2, 5], lines, [(1, 0), (5, 1)])
    assert first["ranges"] == [[2, 2], [5, 5]]
    assert first["segments"] == [0, 1]
    assert (first["lines"], first["depth"], first["parent"]) == (2, 1, parent["_id"])


@given(st.sets(st.integers(1, 300), min_size=1), st.data())
def test_ranges_cover_exactly_the_lines(all_lines: set[int], data: st.DataObject) -> None:
    """Lines of other groups lie between: the ranges are read together with the group."""
    of_parent = sorted(data.draw(st.sets(st.sampled_from(sorted(all_lines)), min_size=1)))
    lines = sorted(data.draw(st.sets(st.sampled_from(of_parent), min_size=1)))
    index = pack_input((line, 0, 1, 0 if line in of_parent else 1) for line in sorted(all_lines))

    shard = {"ranges": runs(lines, of_parent), "group": 0}

    assert lines_of(shard, index) == lines


@given(st.sets(st.integers(1, 60), min_size=1), st.sets(st.integers(2, 60)))
def test_segments_are_those_that_hold_a_line(lines: set[int], borders: set[int]) -> None:
    starts = [(first, no) for no, first in enumerate([1, *sorted(borders)])]

    found = segments_of(sorted(lines), starts)

    assert found == sorted({max(no for first, no in starts if first <= line) for line in lines})
