"""Small deliveries gather: nothing is fetched behind one until it is done and its time is up."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import TopicPartition

from floopy_common.chassis.gathering import Gathering

PLACE, OTHER = TopicPartition("t", 0), TopicPartition("t", 1)


class Places:
    """Stands where the client is: which partitions it has, and which of them are paused."""

    def __init__(self) -> None:
        self.held = {PLACE}
        self.stopped: set[TopicPartition] = set()
        self.resumed = asyncio.Event()

    def assignment(self) -> set[TopicPartition]:
        return self.held

    def pause(self, *partitions: TopicPartition) -> None:
        self.stopped |= set(partitions)
        self.resumed.clear()

    def paused(self) -> set[TopicPartition]:
        return self.stopped & self.held

    def resume(self, *partitions: TopicPartition) -> None:
        assert set(partitions) <= self.held, "the client raises for what it has not got"
        self.stopped -= set(partitions)
        self.resumed.set()


@pytest.fixture
def places() -> Any:
    return Places()


async def test_behind_a_small_delivery_nothing_is_fetched_until_its_time_is_up(places: Any) -> None:
    gathering = Gathering(spacing=0.05)

    gathering.begun(places, 25, lambda: True)
    gathering.ended()
    assert places.paused() == {PLACE}

    await places.resumed.wait()
    assert places.paused() == set()


async def test_nor_before_it_is_done(places: Any) -> None:
    gathering = Gathering(spacing=0)
    gathering.begun(places, 25, lambda: True)
    turns = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.01, turns.set_result, None)
    await turns
    assert places.paused() == {PLACE}

    gathering.ended()
    assert places.paused() == set()


async def test_behind_a_large_delivery_the_next_is_fetched_at_once(places: Any) -> None:
    gathering = Gathering(spacing=3600)

    gathering.begun(places, 500, lambda: True)

    assert places.paused() == set()
    gathering.ended()


async def test_a_partition_that_was_taken_away_meanwhile_is_left_alone(places: Any) -> None:
    gathering = Gathering(spacing=0)
    gathering.begun(places, 1, lambda: True)
    places.held = {OTHER}
    gathering.ended()

    await places.resumed.wait()
    assert places.paused() == set()


async def test_a_connection_that_has_ended_is_not_called_any_more(places: Any) -> None:
    gathering = Gathering(spacing=0)
    gathering.begun(places, 1, lambda: True)

    gathering.forget()
    gathering.ended()

    assert places.paused() == {PLACE}
    assert not places.resumed.is_set()


async def test_deliveries_that_follow_one_another_wait_longer_until_it_is_quiet_again(
    places: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    now, waits = 100.0, list[float]()

    def call_later(delay: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        waits.append(delay)
        return loop.call_at(loop.time() + 3600, call)

    monkeypatch.setattr(loop, "time", lambda: now)
    monkeypatch.setattr(loop, "call_later", call_later)
    gathering = Gathering(spacing=0.2, longest=0.5)

    for quiet in (0.1, 0.1, 0.1, 5.0, 0.1):
        now += quiet
        gathering.begun(places, 25, lambda: True)
        gathering.ended()
        gathering._due()
    gathering.forget()

    assert waits == [0.2, 0.4, 0.5, 0.2, 0.4]


async def test_while_the_broker_has_more_nothing_is_waited_for(places: Any) -> None:
    gathering = Gathering(spacing=60)

    gathering.begun(places, 25, lambda: False)
    gathering.ended()

    assert places.paused() == set()
