"""How long what kills its workers is left alone."""

from typing import Any

import pytest

from floopy_reconciler.core.quarantine import pause_for


def claimed(deaths: int, *, taken_over: bool = True, key: str = "plan:00001") -> dict[str, Any]:
    return {"_id": key, "lease": {"deaths": deaths, "taken_over": taken_over}}


@pytest.mark.parametrize("deaths", [0, 1, 2])
def test_a_death_or_two_may_be_somebody_elses_doing(deaths: int) -> None:
    assert pause_for(claimed(deaths), 30.0) is None


def test_each_further_death_doubles_the_pause_up_to_a_bound() -> None:
    for deaths in range(3, 40):
        pause = pause_for(claimed(deaths), 30.0)
        expected = min(30.0 * 2 ** (deaths - 3), 3_600.0)
        assert pause is not None
        assert 0.5 * expected <= pause <= 1.5 * expected


def test_after_the_pause_there_is_another_try() -> None:
    assert pause_for(claimed(9, taken_over=False), 30.0) is None


def test_what_died_together_is_not_tried_together_again() -> None:
    pauses = {pause_for(claimed(3, key=f"plan:{number:05d}"), 30.0) for number in range(20)}
    assert len({round(pause or 0) for pause in pauses}) > 10


def test_a_document_from_before_deaths_were_counted_has_none() -> None:
    assert pause_for({"_id": "a", "lease": {"token": "t"}}, 30.0) is None
