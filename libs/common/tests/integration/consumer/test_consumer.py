"""The consumer against real brokers: deliveries, failures, brokers that go and return without their log."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from floopy_sinks.bench import Bench, kafka_settings, make_topics
from floopy_sinks.consuming import SERVICE, Taken, consuming, group_of, running
from floopy_sinks.lines import HEADERS, encoded, make_segment
from waiting import eventually

from floopy.backends.embedded import EmbeddedBroker
from floopy.testing import Broker, BrokerKind
from floopy_common.chassis import subscription
from floopy_common.chassis.consumer import Consumer, LineRecord, open_consumer
from floopy_common.chassis.fetching import take_fetched
from floopy_common.chassis.subscription import REWOUND, Subscription, WrongPartitionCount
from floopy_common.events.lines import LINE_COMPLETED
from floopy_common.stores.dead_letters import DeadLetterStore


async def test_the_client_of_the_framework_takes_deliveries_as_we_do(
    bench: Bench, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The framework's own way, which this replaces, unpacks a delivery in one turn of the event loop."""
    found: list[int] = []

    async def take(*arguments: Any) -> Any:
        records = await take_fetched(*arguments)
        found.append(len(records))
        return records

    monkeypatch.setattr(subscription, "take_fetched", take)
    async with consuming(bench, taken):
        await bench.send(LINE_COMPLETED, 1, [(*one, HEADERS) for one in encoded(make_segment("batch_1", 20))])
        await taken.have(20)

    assert sum(found) == 20


async def test_what_comes_while_a_small_delivery_is_in_hand_comes_together(bench: Bench) -> None:
    deliveries: list[list[str]] = []
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def take(records: Sequence[LineRecord]) -> None:
        deliveries.append([record.line.batch_id for record in records])
        begun.set()
        await go_on.wait()

    async with open_consumer(bench.settings, SERVICE, DeadLetterStore(bench.mongo)) as consumer:
        consumer.lines(take)
        async with running(consumer):
            await bench.produce(make_segment("batch_0", 1))
            await begun.wait()
            # one send after the other, to one partition and to others
            for number in range(1, 9):
                where, last = await bench.produce(make_segment(f"batch_{number % 3}{number}", 1))
            go_on.set()
            await bench.caught_up(group_of(bench.settings), where, last)

    first, second = deliveries
    assert first == ["batch_0"]
    assert len(second) == 8


async def test_a_batch_that_fails_comes_again_after_a_pause_and_is_not_committed(
    bench: Bench, taken: Taken
) -> None:
    lines = make_segment("batch_1", 50)
    async with consuming(bench, taken):
        taken.failing = True
        where, last = await bench.produce(lines)

        async def tried() -> bool:
            return taken.calls >= 3

        started = time.monotonic()
        await eventually(tried, what="three tries")
        # 0.2 and 0.4 seconds lie between the first three
        assert time.monotonic() - started > 0.5
        assert await bench.committed(group_of(bench.settings), LINE_COMPLETED, where) == 0
        taken.failing = False
        await bench.caught_up(group_of(bench.settings), where, last)

    assert taken.lines == [line.line_id for line in lines]


async def test_a_control_topic_wakes_whatever_its_records_say(bench: Bench) -> None:
    woken = asyncio.Event()
    async with open_consumer(bench.settings, SERVICE) as consumer:
        consumer.wake("batch.created", woken.set)
        async with running(consumer):
            await bench.send("batch.created", 3, [(None, b"\xff", [("x", None)])])
            async with asyncio.timeout(20):
                await woken.wait()


async def test_another_partition_count_is_refused(bench: Bench, taken: Taken) -> None:
    consumer = Consumer(bench.settings.model_copy(update={"partitions": 6}), SERVICE)
    consumer.lines(taken)
    async with running(consumer, ready=False) as task, asyncio.timeout(30):
        with pytest.raises(WrongPartitionCount):
            await task


async def test_history_is_read_by_a_group_that_comes_later(bench: Bench, taken: Taken) -> None:
    await bench.produce(make_segment("batch_1", 20))
    async with consuming(bench, taken):
        await taken.have(20)


async def test_it_starts_before_its_broker_and_stops_without_one(tmp_path: Path, taken: Taken) -> None:
    own = EmbeddedBroker(tmp_path)
    settings = kafka_settings(Broker(BrokerKind.EMBEDDED, own.address))
    consumer = Consumer(settings, SERVICE)
    consumer.lines(taken)
    async with running(consumer, ready=False) as task:
        assert not await consumer.ready()
        await own.start()
        try:
            await make_topics(settings)
            await eventually(consumer.ready, what="a consumer with its partitions")
        finally:
            await own.kill()

        async def noticed() -> bool:
            return not await consumer.ready()

        await eventually(noticed, what="a consumer that is not ready")
        assert not task.done()
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 10


async def test_what_refills_a_lost_log_is_taken(tmp_path: Path, taken: Taken) -> None:
    """The embedded broker forgets its log and its groups; the consumer lives on, its position with it."""
    first, second = make_segment("batch_1", 20), make_segment("batch_1", 20, no=4, segments=5)
    async with _own_bench(tmp_path) as (own, bench):
        consumer = Consumer(bench.settings, SERVICE)
        consumer.lines(taken)
        async with running(consumer):
            where, last = await bench.produce(first)
            await bench.caught_up(group_of(bench.settings), where, last)
            await own.kill()
            await own.start()
            await make_topics(bench.settings)

            # as many records as were there before: the end of the log says nothing
            assert await bench.produce(second) == (where, last)

            await taken.have(40)
            assert taken.lines[20:] == [line.line_id for line in second]


async def test_a_position_the_log_does_not_reach_is_taken_back(
    tmp_path: Path, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded broker answers a fetch beyond its log with nothing; Kafka itself refuses it."""
    consumers: list[Any] = []
    look = Subscription._look

    async def watched(self: Subscription, consumer: Any) -> None:
        consumers.append(consumer)
        await look(self, consumer)

    monkeypatch.setattr(Subscription, "_look", watched)
    async with _own_bench(tmp_path) as (_, bench):
        consumer = Consumer(bench.settings, SERVICE)
        consumer.lines(taken)
        async with running(consumer):
            for place in consumers[-1].assignment():
                consumers[-1].seek(place, 10_000)
            lines = make_segment("batch_1", 20)
            await bench.produce(lines)

            await taken.have(20)
            assert taken.lines == [line.line_id for line in lines]


async def test_a_commit_that_takes_its_time_is_waited_for(
    tmp_path: Path, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a commit is under way the position is ahead of it, and nothing is lost."""
    commit, look = AIOKafkaConsumer.commit, Subscription._look
    looks: asyncio.Queue[None] = asyncio.Queue()
    rewound = REWOUND.labels(LINE_COMPLETED)._value
    before = rewound.get()

    async def looked(self: Subscription, consumer: AIOKafkaConsumer) -> None:
        await look(self, consumer)
        looks.put_nowait(None)

    async def late(self: AIOKafkaConsumer) -> None:
        while not looks.empty():
            looks.get_nowait()
        for _ in range(4):  # two that agree are enough to go back
            await looks.get()
        await commit(self)

    monkeypatch.setattr(subscription, "_WATCH_INTERVAL", 0.05)
    monkeypatch.setattr(Subscription, "_look", looked)
    monkeypatch.setattr(AIOKafkaConsumer, "commit", late)
    async with _own_bench(tmp_path) as (_, bench):
        consumer = Consumer(bench.settings, SERVICE)
        consumer.lines(taken)
        async with running(consumer):
            where, last = await bench.produce(make_segment("batch_1", 20))
            await bench.caught_up(group_of(bench.settings), where, last)

    assert len(taken.lines) == 20
    assert rewound.get() == before


@asynccontextmanager
async def _own_bench(directory: Path) -> AsyncIterator[tuple[EmbeddedBroker, Bench]]:
    """A broker to kill, with every topic; no database."""
    own = EmbeddedBroker(directory)
    await own.start()
    settings = kafka_settings(Broker(BrokerKind.EMBEDDED, own.address))
    try:
        await make_topics(settings)
        yield own, Bench(settings, None, "", "", directory)  # type: ignore[arg-type]
    finally:
        await own.kill()
