"""The status lattice, both ways: what is allowed and what is not."""

import itertools

import pytest

from floopy_common.domain.batch import BatchStatus, check_transition, timestamp_field
from floopy_common.domain.errors import IllegalTransition

ALLOWED = {
    ("validating", "in_progress"),
    ("validating", "failed"),
    ("validating", "cancelling"),
    ("in_progress", "finalizing"),
    ("in_progress", "failed"),
    ("in_progress", "cancelling"),
    ("finalizing", "completed"),
    ("finalizing", "expired"),
    ("finalizing", "failed"),
    ("finalizing", "cancelling"),
    ("cancelling", "cancelled"),
}


@pytest.mark.parametrize(("current", "target"), sorted(itertools.product(BatchStatus, BatchStatus)))
def test_only_the_lattice_moves_are_allowed(current: BatchStatus, target: BatchStatus) -> None:
    if (current.value, target.value) in ALLOWED:
        check_transition(current, target)
    else:
        with pytest.raises(IllegalTransition):
            check_transition(current, target)


def test_terminal_statuses_lead_nowhere() -> None:
    terminal = {status for status in BatchStatus if status.is_terminal}

    assert terminal == {"completed", "failed", "expired", "cancelled"}
    assert not {current for current, _ in ALLOWED} & terminal


def test_every_status_but_the_first_has_a_timestamp() -> None:
    assert timestamp_field(BatchStatus.VALIDATING) is None
    assert timestamp_field(BatchStatus.FINALIZING) == "finalizing_at"
