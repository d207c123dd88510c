"""What is asked for once is done once, and what is left over when a process stops is handed on."""

import pytest

from floopy_common.domain.errors import LeaseLost
from floopy_reconciler.core.agenda import AT_ONCE, Agenda, open_agenda, side_by_side


class Turns:
    def __init__(self) -> None:
        self.said: list[str] = []

    async def all_due(self) -> None:
        self.said.append("all")

    async def nudge(self, batch_id: str) -> None:
        self.said.append(batch_id)


def test_a_batch_is_on_the_agenda_once_and_in_the_order_of_asking() -> None:
    agenda = Agenda()
    for batch_id in ("b", "a", "b", "c"):
        agenda.ask(batch_id)

    assert agenda.take(2) == ["b", "a"]
    agenda.ask("b")
    assert agenda.take(9) == ["c", "b"]
    assert agenda.take(9) == []


async def test_a_process_that_stops_makes_due_what_it_leaves() -> None:
    turns = Turns()
    wanted = [f"batch_{number}" for number in range(AT_ONCE + 1)]
    async with open_agenda(turns) as agenda:  # type: ignore[arg-type]
        assert turns.said == ["all"], "what a dead process had on its own agenda"
        for batch_id in wanted:
            agenda.ask(batch_id)

    assert turns.said[1:] == wanted


async def fail(error: Exception | None, done: list[str]) -> None:
    if error is not None:
        raise error
    done.append("done")


async def test_one_failure_stops_nobody() -> None:
    done: list[str] = []

    with pytest.raises(ValueError, match="no"):
        await side_by_side([fail(LeaseLost("x"), done), fail(ValueError("no"), done), fail(None, done)])
    assert done == ["done"]


async def test_a_lost_lease_is_told_where_nothing_worse_happened() -> None:
    with pytest.raises(LeaseLost):
        await side_by_side([fail(LeaseLost("x"), []), fail(LeaseLost("y"), [])])


async def test_no_fault_hides_another() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await side_by_side([fail(ValueError("a"), []), fail(KeyError("b"), [])])
    assert [type(each) for each in caught.value.exceptions] == [ValueError, KeyError]
