"""Who waits to be alone waits for what is under way, and nothing begins beside it."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from floopy_submitter.core.slots import Slots
from floopy_submitter.core.solitude import Solitude, Survivors


class World:
    """Two kinds of work, `a` and `b`, with a slot each, and what was woken."""

    def __init__(self) -> None:
        self.woken: list[str] = []
        self.solitude = Solitude(lambda: self.woken.append("alone"))
        self.slots = {kind: Slots(1, lambda: None) for kind in "ab"}
        for kind, slots in self.slots.items():
            self.solitude.join(kind, [slots], lambda kind=kind: self.woken.append(kind))  # type: ignore[misc]

    def steps(self, kinds: str = "ab") -> str:
        """The kinds that may begin with something now."""
        allowed = ""
        for kind in kinds:
            with self.solitude.beginning(kind) as may_begin:
                allowed += kind if may_begin else ""
        return allowed


@pytest.fixture
def world() -> World:
    return World()


class Left:
    """What workers have left behind, in order."""

    def __init__(self, not_beside: Sequence[str], *names: str) -> None:
        self.not_beside = not_beside
        self.names = list(names)
        self.begun: list[str] = []
        self.end = asyncio.Event()

    async def left_behind(self) -> dict[str, Any] | None:
        return {"_id": self.names[0]} if self.names else None

    async def begin_alone(self, found: dict[str, Any]) -> Any:
        self.names.remove(found["_id"])
        self.begun.append(found["_id"])
        return "account", self.end.wait()


async def test_it_waits_for_a_job_of_a_kind_it_is_not_to_be_beside(world: World) -> None:
    job = asyncio.Event()
    world.steps()
    world.slots["a"].start("account", job.wait())  # type: ignore[arg-type]

    assert not world.solitude.enter("a")
    assert world.steps() == "b"
    job.set()
    await world.slots["a"].close(5)
    world.steps("a")

    assert "alone" in world.woken
    assert world.solitude.enter("a")


async def test_it_waits_for_a_step_that_may_still_begin_a_job(world: World) -> None:
    world.steps()
    with world.solitude.beginning("a"):
        assert not world.solitude.enter("ab")

    assert world.solitude.enter("ab")
    assert world.steps() == ""
    world.solitude.leave()
    assert world.steps() == "ab"
    assert world.woken[-2:] == ["a", "b"]


async def test_everybody_has_had_a_turn_between_two_that_are_alone(world: World) -> None:
    assert not world.solitude.enter("a"), "nobody has had one yet"
    world.steps()
    assert world.solitude.enter("a")
    world.solitude.leave()

    assert not world.solitude.enter("a")
    assert world.steps("a") == "a"
    assert not world.solitude.enter("a")
    assert world.steps("b") == "b"
    assert world.solitude.enter("a")


async def test_what_was_left_behind_is_done_one_by_one_and_kinds_take_turns(world: World) -> None:
    first, second = Left("a", "a1", "a2"), Left("ab", "b1")
    survivors = Survivors(solitude=world.solitude, kinds=[first, second])
    beside = []
    for _ in range(3):
        world.steps()
        await survivors.step()
        await survivors.step()  # one is at work
        beside.append(world.steps())
        first.end.set()
        second.end.set()
        await survivors.slots.close(5)

    assert (first.begun, second.begun, beside) == (["a1", "a2"], ["b1"], ["b", "", "b"])
    assert world.steps() == "ab"


async def test_nothing_is_kept_away_for_what_another_worker_has_taken(world: World) -> None:
    left = Left("a", "gone")
    survivors = Survivors(solitude=world.solitude, kinds=[left])
    world.steps()
    with world.solitude.beginning("a"):
        await survivors.step()
    left.names.clear()
    assert world.steps() == "b"

    assert not await survivors.step()

    assert world.steps() == "ab"


async def test_nothing_is_kept_away_after_a_claim_that_failed(world: World) -> None:
    class Failing(Left):
        async def begin_alone(self, found: dict[str, Any]) -> Any:
            raise RuntimeError("the database is gone")

    survivors = Survivors(solitude=world.solitude, kinds=[Failing("a", "one")])
    world.steps()

    with pytest.raises(RuntimeError):
        await survivors.step()

    assert world.steps() == "ab"
