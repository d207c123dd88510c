"""Which shards no batch will ever want."""

from typing import Any

import pytest

from floopy_common.domain.ids import split_shard_id
from floopy_submitter.core.wanted import is_alone, is_stale, may_submit

SHARD = {"plan_id": "plan"}


def batch(status: str, plan_id: str = "plan", ending: str | None = None) -> dict[str, Any]:
    return {"status": status, "plan": {"plan_id": plan_id}, "ending": ending}


@pytest.mark.parametrize("status", ["completed", "failed", "expired", "cancelled", "finalizing"])
def test_shard_that_is_stored_too_late_for_its_batch_is_stale(status: str) -> None:
    """Of a worker that was paused: while it waited, a batch that is finalizing would never end."""
    assert is_stale(batch(status), SHARD)
    assert not may_submit(batch(status), SHARD)


@pytest.mark.parametrize("status", ["in_progress", "cancelling"])
def test_shard_of_a_batch_under_way_is_not_stale(status: str) -> None:
    assert not is_stale(batch(status), SHARD)
    assert is_stale(batch(status, "another"), SHARD)


def test_a_shard_is_alone_unless_its_plan_or_a_split_made_others() -> None:
    batch = {"plan": {"shards": 1}}
    whole = {"_id": "plan_1:00000", "plan_id": "plan_1", "kind": "primary", "splits": None}

    assert is_alone(whole, batch)
    assert not is_alone(whole, {"plan": {"shards": 2}})
    assert not is_alone({**whole, "splits": 1}, batch)
    assert not is_alone({**whole, "_id": split_shard_id("plan_1:00000", 1)}, batch)
    assert not is_alone({**whole, "_id": "plan_1:00000:retry", "kind": "retry"}, batch)
