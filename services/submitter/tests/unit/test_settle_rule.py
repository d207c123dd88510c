"""An attempt is given up only after the window and after enough looks, by the server's clock."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from floopy_submitter.core.recovery import SettleRule

RULE = SettleRule(window=300, looks=3, max_attempts=3)
FENCED = datetime(2026, 11, 25, tzinfo=UTC)


def _shard(began: float, looks: int, *before: str) -> dict[str, Any]:
    attempts = [{"phase": phase} for phase in before]
    attempts.append({"phase": "unknown", "creating_at": FENCED, "looks": looks})
    return {"search": {"began_at": FENCED + timedelta(seconds=began)}, "attempts": attempts}


@pytest.mark.parametrize(
    ("began", "looks", "over"),
    [(300, 2, True), (299.9, 2, False), (300, 1, False), (10_000, 0, False), (-5, 9, False)],
)
def test_window_and_looks_are_both_needed(began: float, looks: int, over: bool) -> None:
    assert RULE.is_over(_shard(began, looks)) is over


@pytest.mark.parametrize(
    ("before", "operator"),
    [
        ((), False),
        (("abandoned",), False),
        (("not_accepted", "not_accepted"), False),
        (("abandoned",) * 2, True),
    ],
)
def test_only_unknown_attempts_count_towards_the_operator(before: tuple[str, ...], operator: bool) -> None:
    assert RULE.needs_operator(_shard(0, 0, *before)) is operator
