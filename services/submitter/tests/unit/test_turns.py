"""Organisations take turns, however many batches each of them has waiting."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from waiting import eventually

from floopy_submitter.core.planning import PLANNING, Planning, in_turns
from floopy_submitter.core.slots import Slots
from floopy_submitter.core.solitude import Solitude


@dataclass(frozen=True)
class Queue:
    org_id: str
    batch_ids: list[str]


def test_each_organisations_first_comes_before_anybodys_second() -> None:
    queues = [Queue("b", ["b1", "b2", "b3"]), Queue("c", ["c1"]), Queue("a", ["a1", "a2"])]

    assert [batch_id for _, batch_id in in_turns(queues, 5)] == ["b1", "c1", "a1", "b2", "a2"]
    assert in_turns(queues, 2) == [("b", "b1"), ("c", "c1")]
    assert [batch_id for _, batch_id in in_turns(queues, 9)] == ["b1", "c1", "a1", "b2", "a2", "b3"]


def test_nothing_waits_or_nothing_fits() -> None:
    assert in_turns([], 3) == []
    assert in_turns([Queue("a", ["a1"])], 0) == []


class Store:
    """Batches by organisation, small and large ones."""

    def __init__(self, small: dict[str, list[str]], large: dict[str, list[str]]) -> None:
        self.waits = {False: small, True: large}
        self.begun: list[str] = []

    async def waiting(self, after: str, most: int, *, bound: int, large: bool) -> Iterable[Queue]:
        queues = [Queue(org, ids[:most]) for org, ids in sorted(self.waits[large].items()) if ids]
        return [q for q in queues if q.org_id > after] + [q for q in queues if q.org_id <= after]

    async def claim(self, batch_id: str, now: datetime) -> str:
        for batches in (*self.waits[False].values(), *self.waits[True].values()):
            if batch_id in batches:
                batches.remove(batch_id)
        self.begun.append(batch_id)
        return batch_id


class Planner:
    async def plan(self, claim: Any) -> None:
        return None


async def test_a_large_input_has_its_turn_whoever_has_small_ones() -> None:
    store = Store({"s": [f"s{n}" for n in range(1_000)]}, {"t": [f"t{n}" for n in range(20)], "a": ["a1"]})
    solitude = Solitude(lambda: None)
    solitude.join(PLANNING, [], lambda: None)
    small, large = Slots(16, lambda: None), Slots(1, lambda: None)
    planning = Planning(
        store=store,  # type: ignore[arg-type]
        planner=Planner(),  # type: ignore[arg-type]
        small=small,
        large=large,
        solitude=solitude,
        now=lambda: datetime.now(UTC),
    )

    for _ in range(4):
        await planning.step()
        await eventually(lambda: (small.free, large.free) == (16, 1), what="the end of this step's plans")

    assert [batch_id for batch_id in store.begun if not batch_id.startswith("s")] == ["a1", "t0", "t1", "t2"]
    assert len(store.begun) > 60
