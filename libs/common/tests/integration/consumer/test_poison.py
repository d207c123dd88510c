"""Records the consumer cannot take: dead letters with every byte, and where it stops for them."""

from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from floopy_sinks.bench import Bench, kafka_settings, make_topics
from floopy_sinks.consuming import SERVICE, Taken, consuming, group_of, running
from floopy_sinks.lines import HEADERS, encoded, make_segment
from waiting import eventually

from floopy.backends.topics import TopicSpec, create_topics
from floopy.testing import Broker
from floopy_common.chassis.consumer import Consumer, LineRecord, open_consumer
from floopy_common.domain.errors import Invalid
from floopy_common.events.envelope import Envelope
from floopy_common.events.lines import LINE_COMPLETED
from floopy_common.stores.dead_letters import DeadLetterStore
from floopy_common.topics import full_name


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


async def test_poison_goes_to_the_dead_letters_with_its_bytes_and_those_behind_it_flow(
    bench: Bench, taken: Taken
) -> None:
    lines = encoded(make_segment("batch_1", 2))
    poison = _poison(lines[0][1])
    async with consuming(bench, taken):
        records = [(key, value, headers) for key, value, headers, _ in poison]
        offsets = await bench.send(LINE_COMPLETED, 1, [(*lines[0], HEADERS), *records, (*lines[1], HEADERS)])
        await bench.caught_up(group_of(bench.settings), 1, offsets[-1])

    assert taken.lines == ["batch_1:000000001", "batch_1:000000002"]
    letters = await bench.read(f"{LINE_COMPLETED}.dlq", len(poison))
    rows = {row["dlq_offset"]: row for row in await bench.rows("dead_letters")}
    for number, (letter, (key, value, headers, word)) in enumerate(zip(letters, poison, strict=True)):
        assert (letter.key, letter.value) == (key, value)
        said = dict(letter.headers)
        assert [(name, said[name]) for name, _ in headers] == [(name, content) for name, content in headers]
        assert word in said["floopy-dlq-reason"].decode()
        assert said["floopy-dlq-topic"] == LINE_COMPLETED.encode()
        assert said["floopy-dlq-group"] == group_of(bench.settings).encode()
        assert (said["floopy-dlq-partition"], said["floopy-dlq-offset"]) == (
            b"1",
            str(offsets[number + 1]).encode(),
        )
        row = rows[letter.offset]
        assert row["_id"] == f"{group_of(bench.settings)}:{LINE_COMPLETED}:1:{offsets[number + 1]}"
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
        assert await bench.committed(group_of(bench.settings), LINE_COMPLETED, 4) == 0
    assert taken.lines == []
    assert await bench.rows("dead_letters") == []


async def test_too_many_records_in_a_row_stop_the_topic(bench: Bench, taken: Taken) -> None:
    consumer = Consumer(bench.settings, SERVICE, DeadLetterStore(bench.mongo), poison_limit=20)
    consumer.lines(taken)
    good = encoded(make_segment("batch_1", 1))[0]
    async with running(consumer):
        poison = [(b"k", b"poison", HEADERS)] * 20
        (*_, last) = await bench.send(LINE_COMPLETED, 0, poison)
        await bench.caught_up(group_of(bench.settings), 0, last)
        await bench.send(LINE_COMPLETED, 0, [(*good, HEADERS)])

        async def halted() -> bool:
            return not await consumer.ready()

        await eventually(halted, what="a consumer that is not ready")
        assert await bench.committed(group_of(bench.settings), LINE_COMPLETED, 0) == 20
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
