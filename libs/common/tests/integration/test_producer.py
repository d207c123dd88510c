"""The producer against real brokers: offsets, order, sizes, and life after a failure."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from floopy.testing import Broker
from floopy_common.chassis.producer import NotSent, Producer, RecordTooLarge, open_producer
from floopy_common.settings import KafkaSettings

TOPIC = "batch.line.completed"


@pytest.fixture
def settings(broker: Broker) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=broker.bootstrap_servers,
        topic_prefix=f"{uuid.uuid4().hex}.",
        idempotent=broker.idempotent,
        send_timeout=10.0,
    )


@pytest.fixture
async def producer(settings: KafkaSettings) -> AsyncIterator[Producer]:
    await _create_topic(settings)
    async with open_producer(settings) as opened:
        yield opened


async def _create_topic(settings: KafkaSettings, config: dict[str, str] | None = None) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(settings.topic_prefix + TOPIC, 4, 1, topic_configs=config or {})])
    finally:
        await admin.close()


async def _read(settings: KafkaSettings, partition: int, last: int) -> list[tuple[int, bytes, bytes]]:
    place = TopicPartition(settings.topic_prefix + TOPIC, partition)
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.bootstrap_servers, auto_offset_reset="earliest")
    await consumer.start()
    rows: list[tuple[int, bytes, bytes]] = []
    try:
        consumer.assign([place])
        await consumer.seek_to_beginning(place)
        async with asyncio.timeout(20):
            while not rows or rows[-1][0] < last:
                record = await consumer.getone()
                assert dict(record.headers) == {"content-type": b"application/cloudevents+json"}
                rows.append((record.offset, record.key, record.value))
    finally:
        await consumer.stop()
    return rows


async def test_a_batch_arrives_whole_in_order_on_its_partition(
    producer: Producer, settings: KafkaSettings
) -> None:
    records = [(f"k{n}".encode(), f"{n}:".encode() + b"x" * 900) for n in range(1_000)]

    first, last = await producer.send_batch(TOPIC, 2, records)

    assert (first, last) == (0, 999)
    assert [(key, value) for _, key, value in await _read(settings, 2, last)] == records


async def test_compressed_batches_arrive_as_they_were(settings: KafkaSettings) -> None:
    compressed = settings.model_copy(update={"compression": "zstd"})
    await _create_topic(compressed)
    records = [(f"k{n}".encode(), f"{n}:".encode() + b"x" * 900) for n in range(1_000)]

    async with open_producer(compressed) as producer:
        _, last = await producer.send_batch(TOPIC, 2, records)

    assert [(key, value) for _, key, value in await _read(compressed, 2, last)] == records


async def test_offsets_go_on_where_the_last_batch_ended(producer: Producer) -> None:
    assert await producer.send_batch(TOPIC, 1, [(b"a", b"1")] * 3) == (0, 2)
    assert await producer.send_batch(TOPIC, 1, [(b"b", b"2")] * 2) == (3, 4)
    assert await producer.send_batch(TOPIC, 0, [(b"c", b"3")]) == (0, 0)


async def test_concurrent_batches_of_one_partition_stay_whole(
    producer: Producer, settings: KafkaSettings
) -> None:
    batches = [[(f"w{w}".encode(), f"{n}".encode() + b"." * 2_000) for n in range(300)] for w in range(4)]

    spans = await asyncio.gather(*(producer.send_batch(TOPIC, 3, batch) for batch in batches))

    rows = await _read(settings, 3, 1_199)
    for batch, (first, last) in zip(batches, spans, strict=True):
        mine = [(offset, key, value) for offset, key, value in rows if key == batch[0][0]]
        assert [(key, value) for _, key, value in mine] == batch
        assert (mine[0][0], mine[-1][0]) == (first, last)


async def test_a_single_record_is_acknowledged(producer: Producer, settings: KafkaSettings) -> None:
    await producer.send(TOPIC, b"key", b"value")

    consumer = AIOKafkaConsumer(
        settings.topic_prefix + TOPIC,
        bootstrap_servers=settings.bootstrap_servers,
        auto_offset_reset="earliest",
    )
    async with asyncio.timeout(20), consumer:
        record = await consumer.getone()
    assert (record.key, record.value) == (b"key", b"value")


async def test_an_oversized_record_is_refused_before_anything_is_sent(producer: Producer) -> None:
    with pytest.raises(RecordTooLarge):
        await producer.send_batch(TOPIC, 0, [(b"a", b"1"), (b"b", b"x" * 1_000_000)])
    assert await producer.send_batch(TOPIC, 0, [(b"c", b"2")]) == (0, 0)


async def test_an_unknown_partition_is_not_sent_to(producer: Producer) -> None:
    with pytest.raises(NotSent):
        await producer.send_batch(TOPIC, 9, [(b"a", b"1")])
    assert await producer.send_batch(TOPIC, 0, [(b"a", b"1")]) == (0, 0)


async def test_a_broker_that_is_away_is_no_reason_not_to_start() -> None:
    settings = KafkaSettings(bootstrap_servers="127.0.0.1:1", send_timeout=0.5)
    async with open_producer(settings) as producer:
        with pytest.raises(NotSent):
            await producer.send("batch.created", b"k", b"v")


async def test_no_batch_is_larger_than_the_largest_message(kafka_bootstrap: str) -> None:
    most = 65_536
    settings = KafkaSettings(
        bootstrap_servers=kafka_bootstrap, topic_prefix=f"{uuid.uuid4().hex}.", max_message_bytes=most
    )
    await _create_topic(settings, {"max.message.bytes": str(most)})
    records = [(b"k", b"x" * 1_000)] * 500
    async with open_producer(settings) as producer:
        assert await producer.send_batch(TOPIC, 0, records) == (0, 499)


async def test_a_topic_smaller_than_the_setting_does_not_break_later_sends(kafka_bootstrap: str) -> None:
    settings = KafkaSettings(
        bootstrap_servers=kafka_bootstrap, topic_prefix=f"{uuid.uuid4().hex}.", send_timeout=10.0
    )
    await _create_topic(settings, {"max.message.bytes": "2000"})
    async with open_producer(settings) as producer:
        await producer.send_batch(TOPIC, 0, [(b"a", b"1")])

        with pytest.raises(RecordTooLarge):
            await producer.send_batch(TOPIC, 0, [(b"a", b"x" * 50_000)])

        # the refused batch left a gap in the first producer's sequence
        assert await producer.send_batch(TOPIC, 0, [(b"b", b"2")]) == (1, 1)
