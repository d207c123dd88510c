"""What a batch ends as, and what its files consist of."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from floopy_common.domain.batch import BatchStatus
from floopy_reconciler.core.finalise import (
    all_refused,
    counts_of,
    errors_of,
    final_status,
    output_file,
    usage_of,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def make_shard(state: str = "settled", ended: str = "finished", kind: str = "primary") -> dict[str, Any]:
    return {"state": state, "ended": ended, "kind": kind}


def make_part(blob: str, length: int) -> dict[str, Any]:
    return {"blob": blob, "length": length, "sha256": hashlib.sha256(blob.encode()).hexdigest(), "lines": 1}


def make_segment(output: Any = None, error: Any = None, **usage: int) -> dict[str, Any]:
    counts = {"completed": 1 if output else 0, "failed": 1 if error else 0}
    return {"manifest": {"output": output, "error": error}, "counts": counts, "usage": usage or None}


def make_batch(**changes: Any) -> dict[str, Any]:
    return {
        "_id": "batch_1",
        "org_id": "org_1",
        "status": "finalizing",
        "ending": None,
        "output_expires_after": None,
        **changes,
    }


@pytest.mark.parametrize(
    ("batch", "shards", "status"),
    [
        (make_batch(), [make_shard()], BatchStatus.COMPLETED),
        (make_batch(), [make_shard(), make_shard("refused", "refused")], BatchStatus.COMPLETED),
        (make_batch(), [make_shard(ended="expired")], BatchStatus.EXPIRED),
        (make_batch(), [make_shard(), make_shard(ended="expired", kind="retry")], BatchStatus.COMPLETED),
        (make_batch(ending="expired"), [make_shard()], BatchStatus.EXPIRED),
        (
            make_batch(status="cancelling", ending="cancelled"),
            [make_shard(ended="expired")],
            BatchStatus.CANCELLED,
        ),
    ],
)
def test_final_status(batch: dict[str, Any], shards: list[dict[str, Any]], status: BatchStatus) -> None:
    assert final_status(batch, shards) is status


def test_failed_needs_every_shard_refused() -> None:
    refused = make_shard("refused", "refused")

    assert all_refused([refused, refused])
    assert not all_refused([refused, make_shard()])
    assert not all_refused([])


def test_file_is_its_parts_in_order() -> None:
    segments = [make_segment(make_part("a", 5)), make_segment(None), make_segment(make_part("b", 7))]

    file = output_file(make_batch(), segments, "output", NOW)

    assert file is not None
    assert [(part["blob"], part["offset"], part["length"]) for part in file["ranges"]] == [
        ("a", 0, 5),
        ("b", 0, 7),
    ]
    assert file["bytes"] == 12
    hashes = "".join(part["sha256"] for part in file["ranges"])
    assert file["etag"] == hashlib.sha256(hashes.encode()).hexdigest()
    assert file["expires_at"] == NOW + timedelta(days=30)


def test_no_file_without_a_line() -> None:
    assert output_file(make_batch(), [make_segment(make_part("a", 1))], "error", NOW) is None


@pytest.mark.surface("9.13")
def test_file_expires_when_the_user_said() -> None:
    batch = make_batch(output_expires_after={"anchor": "created_at", "seconds": 3600})

    file = output_file(batch, [make_segment(error=make_part("a", 1))], "error", NOW)

    assert file is not None
    assert file["expires_at"] == NOW + timedelta(hours=1)


def test_counts_and_usage_are_sums() -> None:
    segments = [
        make_segment(make_part("a", 1), input_tokens=3, output_tokens=4, total_tokens=7),
        make_segment(error=make_part("b", 1)),
        make_segment(make_part("c", 1), input_tokens=1, output_tokens=1, cached_tokens=1, total_tokens=2),
    ]

    assert counts_of(segments, 3) == {"total": 3, "completed": 2, "failed": 1}
    assert usage_of(segments) == {
        "input_tokens": 4,
        "cached_tokens": 1,
        "cache_write_tokens": 0,
        "output_tokens": 5,
        "reasoning_tokens": 0,
        "total_tokens": 9,
    }


def test_errors_come_in_line_order_and_once() -> None:
    first = {"code": "c", "line": 9, "message": "m", "param": None}
    second = {**first, "line": 2}
    general = {**first, "line": None}
    shards = [{"refused": {"errors": [first, general]}}, {"refused": {"errors": [second, general]}}]

    assert errors_of(shards) == [general, second, first]
