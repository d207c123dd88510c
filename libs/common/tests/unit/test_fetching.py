"""A delivery is taken in slices: nobody waits for all of it, and nothing in hand is lost by what follows."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from floopy_common.chassis import fetching
from floopy_common.chassis.fetching import is_all, take_fetched


def records(partition: int, first: int, count: int) -> list[Any]:
    return [SimpleNamespace(partition=partition, offset=first + at) for at in range(count)]


class Client:
    """Stands where the client is: what it has fetched, what the broker has besides, and what fails then."""

    def __init__(self, *fetched: Any, ends: dict[int, int] | None = None) -> None:
        self.fetched = [one for part in fetched for one in part]
        self.ends = ends or {}
        self.late: list[Any] = []
        self.failure: Exception | None = None
        self.asked: list[tuple[int, int]] = []
        self.held = {0, 1}

    async def getmany(self, *, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        self.asked.append((timeout_ms, max_records))
        if not self.fetched and timeout_ms and self.late:
            self.fetched, self.late = self.late, []
        if not self.fetched and self.failure is not None:
            raise self.failure
        found: dict[TopicPartition, list[Any]] = {}
        for record in self.fetched[:max_records]:
            found.setdefault(TopicPartition("t", record.partition), []).append(record)
        del self.fetched[:max_records]
        return found

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition("t", partition) for partition in self.held}

    def highwater(self, place: TopicPartition) -> int | None:
        assert place.partition in self.held, "the client raises for what it has not got"
        return self.ends.get(place.partition)


@pytest.fixture
def begun() -> list[int]:
    return []


async def _take(client: Client, begun: list[int]) -> list[Any]:
    consumer: Any = client
    mark: Callable[[], None] = lambda: begun.append(len(client.fetched))  # noqa: E731
    return list(await take_fetched(consumer, "t", mark))


async def test_a_delivery_is_unpacked_in_slices_between_which_others_run(begun: list[int]) -> None:
    client, turns = Client(records(0, 0, 1_500), records(1, 0, 1_500)), 0
    loop = asyncio.get_running_loop()

    def other() -> None:
        nonlocal turns
        turns += 1
        if client.fetched:
            loop.call_soon(other)

    loop.call_soon(other)
    taken = await _take(client, begun)
    client.fetched.clear()

    assert [(one.partition, one.offset) for one in taken] == [
        *((0, at) for at in range(1_500)),
        *((1, at) for at in range(500)),
    ]
    assert {most for _, most in client.asked} == {200}
    assert turns >= len(client.asked) - 1
    assert begun == [2_800], "begun once, by the first slice"


async def test_a_few_records_wait_for_what_the_broker_has_besides(begun: list[int]) -> None:
    client = Client(records(0, 0, 30), ends={0: 130})
    client.late = records(0, 30, 100)

    taken = await _take(client, begun)

    assert [one.offset for one in taken] == list(range(130))


async def test_but_not_for_ever(begun: list[int]) -> None:
    client = Client(records(0, 0, 30), ends={0: 130})

    assert len(await _take(client, begun)) == 30
    assert [bool(patience) for patience, _ in client.asked] == [True, True]


async def test_where_the_broker_has_no_more_they_are_handed_out_in_the_same_turn(begun: list[int]) -> None:
    client = Client(records(0, 0, 30), ends={0: 30})
    is_late = []
    asyncio.get_running_loop().call_soon(is_late.append, True)

    assert len(await _take(client, begun)) == 30
    assert not is_late, "the client may have asked for more by now"


async def test_what_is_in_hand_outlives_a_failure_behind_it(begun: list[int]) -> None:
    client = Client(records(0, 0, 200))
    client.failure = KafkaError("no longer")

    assert len(await _take(client, begun)) == 200
    with pytest.raises(KafkaError):
        await _take(client, begun)


async def test_nothing_comes_after_a_pause_and_begins_nothing(
    begun: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(fetching.asyncio, "sleep", sleep)

    assert await _take(Client(), begun) == []
    assert (pauses, begun) == ([0.03], [])


async def test_a_partition_that_was_taken_away_brings_no_more() -> None:
    client: Any = Client(ends={0: 10, 1: 10})
    both = records(0, 0, 5) + records(1, 0, 10)

    assert not is_all(client, "t", both)
    client.held = {1}
    assert is_all(client, "t", both)
