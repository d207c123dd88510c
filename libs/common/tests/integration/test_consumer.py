"""The consumer against real brokers: poison, failures, brokers that go and come back without their log."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from floopy_sinks.bench import Bench, kafka_settings, make_topics
from floopy_sinks.lines import HEADERS, encoded, make_segment
from waiting import eventually

from floopy.backends.embedded import EmbeddedBroker
from floopy.backends.topics import TopicSpec, create_topics
from floopy.testing import Broker, BrokerKind
from floopy_common.chassis import subscription
from floopy_common.chassis.consumer import Consumer, LineRecord, group_id, open_consumer
from floopy_common.chassis.fetching import take_fetched
from floopy_common.chassis.subscription import REWOUND, Subscription, WrongPartitionCount
from floopy_common.domain.errors import Invalid, Transient
from floopy_common.events.envelope import Envelope
from floopy_common.events.lines import LINE_COMPLETED
from floopy_common.settings import KafkaSettings
from floopy_common.stores.dead_letters import DeadLetterStore
from floopy_common.topics import full_name

SERVICE = "floopy-test"


class Taken:
    """A handler that keeps what it was given, and fails while it is told to."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.calls = 0
        self.failing = False

    async def __call__(self, records: Sequence[LineRecord]) -> None:
        self.calls += 1
        if self.failing:
            raise Transient("not now")
        self.lines += [record.line.line_id for record in records]

    async def have(self, count: int, timeout: float = 30.0) -> None:
        async def enough() -> bool:
            return len(self.lines) >= count

        await eventually(enough, timeout=timeout, what=f"{count} lines taken")


@pytest.fixture
def taken() -> Taken:
    return Taken()


@asynccontextmanager
async def running(consumer: Consumer, *, ready: bool = True) -> AsyncIterator[asyncio.Task[None]]:
    stop = asyncio.Event()
    task = asyncio.create_task(consumer.run(stop))
    try:
        if ready:
            await eventually(consumer.ready, what="a consumer with its partitions")
        yield task
    finally:
        stop.set()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def consuming(bench: Bench, taken: Taken) -> AsyncIterator[Consumer]:
    async with open_consumer(bench.settings, SERVICE, DeadLetterStore(bench.mongo)) as consumer:
        consumer.lines(taken)
        async with running(consumer):
            yield consumer


def _group(settings: KafkaSettings, topic: str = LINE_COMPLETED) -> str:
    return group_id(settings.topic_prefix, SERVICE, topic)


def _poison(good: bytes) -> list[tuple[bytes | None, bytes | None, Any, str]]:
    """Key, value, headers, and a word of the cause."""
    return [
        (b"k1", b'{"not": json', HEADERS, "not a line event"),
        (b"k2", good, [*HEADERS, ("trace", b"\xff\xfe")], "not UTF-8"),
        (b"k3", good, [("nothing", None)], "null"),
        (b"k4", good.replace(b'"dataversion":1', b'"dataversion":2'), HEADERS, "dataversion"),
        (b"k5", None, HEADERS, "without a value"),
        (b"k6", good.replace(b'"line_no":1,', b'"line_no":9,'), HEADERS, "line id"),
        (b"k6", good.replace(b'"lines":2', b'"lines":0'), HEADERS, "as many lines"),
        (b"k6", good.replace(b'"no":0', b'"no":99999999999999999999'), HEADERS, "not one of its batch"),
        (None, b"\xff\xfe", HEADERS, "not a line event"),
        (b"k8", b"[" * 100_000, HEADERS, "not a line event"),
    ]


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


async def test_poison_goes_to_the_dead_letters_with_its_bytes_and_those_behind_it_flow(
    bench: Bench, taken: Taken
) -> None:
    lines = encoded(make_segment("batch_1", 2))
    poison = _poison(lines[0][1])
    async with consuming(bench, taken):
        records = [(key, value, headers) for key, value, headers, _ in poison]
        offsets = await bench.send(LINE_COMPLETED, 1, [(*lines[0], HEADERS), *records, (*lines[1], HEADERS)])
        await bench.caught_up(_group(bench.settings), 1, offsets[-1])

    assert taken.lines == ["batch_1:000000001", "batch_1:000000002"]
    letters = await bench.read(f"{LINE_COMPLETED}.dlq", len(poison))
    rows = {row["dlq_offset"]: row for row in await bench.rows("dead_letters")}
    for number, (letter, (key, value, headers, word)) in enumerate(zip(letters, poison, strict=True)):
        assert (letter.key, letter.value) == (key, value)
        said = dict(letter.headers)
        assert [(name, said[name]) for name, _ in headers] == [(name, content) for name, content in headers]
        assert word in said["floopy-dlq-reason"].decode()
        assert said["floopy-dlq-topic"] == LINE_COMPLETED.encode()
        assert said["floopy-dlq-group"] == _group(bench.settings).encode()
        assert (said["floopy-dlq-partition"], said["floopy-dlq-offset"]) == (
            b"1",
            str(offsets[number + 1]).encode(),
        )
        row = rows[letter.offset]
        assert row["_id"] == f"{_group(bench.settings)}:{LINE_COMPLETED}:1:{offsets[number + 1]}"
        assert (row["state"], row["line_id"]) == ("parked", None)


async def test_a_record_without_key_and_value_stops_nothing(bench: Bench, taken: Taken) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bench.settings.bootstrap_servers) as producer:
        batch = producer.create_batch()
        batch.append(timestamp=None, key=None, value=None, headers=[("trace", b"1")])
        name = full_name(bench.settings.topic_prefix, LINE_COMPLETED)
        await (await producer.send_batch(batch, name, partition=1))
    lines = encoded(make_segment("batch_1", 1))
    async with consuming(bench, taken):
        await bench.send(LINE_COMPLETED, 1, [(*lines[0], HEADERS)])
        await taken.have(1)

    (letter,) = await bench.read(f"{LINE_COMPLETED}.dlq", 1)
    said = dict(letter.headers)
    assert (letter.key, letter.value, said["trace"]) == (None, b"", b"1")
    assert b"without a value" in said["floopy-dlq-reason"]


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
            await bench.caught_up(_group(bench.settings), where, last)

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
        assert await bench.committed(_group(bench.settings), LINE_COMPLETED, where) == 0
        taken.failing = False
        await bench.caught_up(_group(bench.settings), where, last)

    assert taken.lines == [line.line_id for line in lines]


async def test_nothing_is_committed_past_poison_that_cannot_be_parked(
    broker: Broker, bench: Bench, taken: Taken
) -> None:
    """The topic has a fifth partition, the dead letters have not: its poison has nowhere to go."""
    dead_letters = f"{LINE_COMPLETED}.dlq"
    bench.settings = kafka_settings(broker, partitions=5, send_timeout=2.0)
    await make_topics(bench.settings, without=dead_letters)
    name = bench.settings.topic_prefix + dead_letters
    await create_topics(bench.settings.bootstrap_servers, [TopicSpec(name, 4)])
    good = encoded(make_segment("batch_1", 1))[0]
    async with consuming(bench, taken) as consumer:
        await bench.send(LINE_COMPLETED, 4, [(b"k", b"poison", HEADERS), (*good, HEADERS)])

        async def stuck() -> bool:
            return not await consumer.ready()

        await eventually(stuck, what="a consumer that is not ready")
        assert await bench.committed(_group(bench.settings), LINE_COMPLETED, 4) == 0
    assert taken.lines == []
    assert await bench.rows("dead_letters") == []


async def test_too_many_records_in_a_row_stop_the_topic(bench: Bench, taken: Taken) -> None:
    consumer = Consumer(bench.settings, SERVICE, DeadLetterStore(bench.mongo), poison_limit=20)
    consumer.lines(taken)
    good = encoded(make_segment("batch_1", 1))[0]
    async with running(consumer):
        poison = [(b"k", b"poison", HEADERS)] * 20
        (*_, last) = await bench.send(LINE_COMPLETED, 0, poison)
        await bench.caught_up(_group(bench.settings), 0, last)
        await bench.send(LINE_COMPLETED, 0, [(*good, HEADERS)])

        async def halted() -> bool:
            return not await consumer.ready()

        await eventually(halted, what="a consumer that is not ready")
        assert await bench.committed(_group(bench.settings), LINE_COMPLETED, 0) == 20
    assert taken.lines == []


async def test_lines_a_handler_parks_count_as_records_that_cannot_be_taken(bench: Bench) -> None:
    consumer = Consumer(bench.settings, SERVICE, DeadLetterStore(bench.mongo), poison_limit=30)

    async def refuse_all(records: Sequence[LineRecord]) -> None:
        await consumer.park([(record, "nothing fits") for record in records])

    consumer.lines(refuse_all)
    async with running(consumer):
        await bench.produce(make_segment("batch_1", 30))
        await bench.read(f"{LINE_COMPLETED}.dlq", 30)
        await bench.produce(make_segment("batch_1", 30, no=4, segments=5))

        async def halted() -> bool:
            return not await consumer.ready()

        await eventually(halted, what="a consumer that is not ready")
    rows = await bench.rows("dead_letters")
    assert {row["line_id"] for row in rows} == {line.line_id for line in make_segment("batch_1", 30)}
    assert {row["reason"] for row in rows} == {"nothing fits"}


async def test_an_event_its_handler_finds_invalid_is_parked_and_the_next_one_handled(bench: Bench) -> None:
    event = (
        b'{"specversion":"1.0","id":"e%d","type":"batch.failed","source":"s","subject":"batch_1",'
        b'"time":"t","dataversion":%d,"data":{}}'
    )
    seen: list[str] = []

    async def handle(envelope: Envelope) -> None:
        if envelope.id == "e2":
            raise Invalid("not this one")
        seen.append(envelope.id)

    async with open_consumer(bench.settings, SERVICE, DeadLetterStore(bench.mongo)) as consumer:
        consumer.events("batch.failed", handle)
        async with running(consumer):
            values = [event % (1, 1), event % (2, 1), b"{", event % (3, 2), event % (4, 1)]
            await bench.send("batch.failed", 2, [(b"batch_1", value, HEADERS) for value in values])
            letters = await bench.read("batch.failed.dlq", 3)

    assert seen == ["e1", "e4"]
    assert [letter.value for letter in letters] == values[1:4]


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
            await bench.caught_up(_group(bench.settings), where, last)
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
            await bench.caught_up(_group(bench.settings), where, last)

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
