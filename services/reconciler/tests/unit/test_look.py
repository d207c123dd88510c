"""A look never makes a provider batch less than it was."""

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floopy_common.providers.port import ProviderBatch, ProviderStatus
from floopy_reconciler.core.look import Look, Pace, understand

_AT = datetime(2026, 1, 1, tzinfo=UTC)
_BEFORE_THE_END = [status for status in ProviderStatus if not status.is_terminal]


def seen(status: ProviderStatus, completed: int = 0, failed: int = 0, **more: Any) -> ProviderBatch:
    return ProviderBatch(
        id="up", status=status, created_at=_AT, total=10, completed=completed, failed=failed, **more
    )


def after(shard: dict[str, Any], look: Look) -> dict[str, Any]:
    """The shard as the store keeps it."""
    return {
        **shard,
        "provider_status": look.status.value,
        "provider_counts": dict(look.counts),
        "provider_files": dict(look.files),
    }


def test_first_look_is_taken_as_it_is() -> None:
    look = understand({}, seen(ProviderStatus.IN_PROGRESS, 3, 1))

    assert look.status is ProviderStatus.IN_PROGRESS
    assert look.counts == {"total": 10, "completed": 3, "failed": 1}
    assert look.accounted == 4
    assert look.changed
    assert not look.regressed


def test_same_again_is_no_change() -> None:
    shard = after({}, understand({}, seen(ProviderStatus.IN_PROGRESS, 3)))

    assert not understand(shard, seen(ProviderStatus.IN_PROGRESS, 3)).changed


def test_completed_does_not_go_back_to_finalizing() -> None:
    shard = after({}, understand({}, seen(ProviderStatus.COMPLETED, 10, output_file_id="out")))

    look = understand(shard, seen(ProviderStatus.FINALIZING, 10))

    assert look.status is ProviderStatus.COMPLETED
    assert look.files["output"] == "out"
    assert look.regressed


def test_one_final_status_does_not_take_the_place_of_another() -> None:
    shard = after({}, understand({}, seen(ProviderStatus.COMPLETED, 10)))

    assert understand(shard, seen(ProviderStatus.FAILED)).status is ProviderStatus.COMPLETED


def test_files_that_come_late_are_taken() -> None:
    shard = after({}, understand({}, seen(ProviderStatus.COMPLETED, 10)))

    look = understand(shard, seen(ProviderStatus.COMPLETED, 10, output_file_id="late"))

    assert look.files["output"] == "late"
    assert not look.regressed


def test_counts_that_fall_are_flagged_and_not_taken() -> None:
    shard = after({}, understand({}, seen(ProviderStatus.IN_PROGRESS, 7, 2)))

    look = understand(shard, seen(ProviderStatus.IN_PROGRESS, 5, 2))

    assert look.counts == {"total": 10, "completed": 7, "failed": 2}
    assert look.regressed


@given(
    st.lists(st.tuples(st.sampled_from(ProviderStatus), st.integers(0, 10), st.integers(0, 10)), min_size=2)
)
def test_whatever_is_seen_nothing_goes_back(sights: list[tuple[ProviderStatus, int, int]]) -> None:
    shard: dict[str, Any] = {}
    looks = []
    for status, completed, failed in sights:
        looks.append(understand(shard, seen(status, completed, failed)))
        shard = after(shard, looks[-1])

    for earlier, later in pairwise(looks):
        assert all(later.counts[name] >= earlier.counts[name] for name in earlier.counts)
        assert not earlier.status.is_terminal or later.status is earlier.status


@pytest.mark.parametrize("status", list(ProviderStatus))
def test_intervals_stay_within_their_bounds(status: ProviderStatus) -> None:
    pace = Pace(shortest=1.0, longest=8.0)
    look = understand({}, seen(status))

    for interval in (None, 0.001, 4.0, 1000.0):
        assert 0.9 <= pace.after({"poll": {"interval": interval}}, look) <= 8.8


@pytest.mark.parametrize("status", _BEFORE_THE_END)
def test_intervals_grow_while_nothing_moves(status: ProviderStatus) -> None:
    pace = Pace(shortest=1.0, longest=60.0)
    shard = after({}, understand({}, seen(status))) | {"poll": {"interval": 10.0}}

    assert pace.after(shard, understand(shard, seen(status))) > 12
    assert pace.after(shard, understand(shard, seen(status, completed=1))) < 6


def test_failures_in_a_row_double_the_wait_up_to_the_longest() -> None:
    pace = Pace(shortest=1.0, longest=60.0)

    assert pace.after_failure(1) < pace.after_failure(3) < pace.after_failure(5)
    assert pace.after_failure(10_000) <= 66.0
