"""The brokers as backends: what each keeps over a kill, and topics as they should be."""

import dataclasses
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from floopy.backends.backend import BackendMissingError, StartError, start
from floopy.backends.embedded import EmbeddedBroker
from floopy.backends.kafka import KafkaBroker
from floopy.backends.topics import PartitionCountError, TopicSpec, create_topics
from floopy.stack.brokers import BrokerChoice, check_partitions, choose_broker, program_with_topics
from floopy.testing import Broker

RECORDS = 200
TOPIC = TopicSpec("kept", 4, {"max.message.bytes": "2000000"})


async def produce(bootstrap_servers: str) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers, acks="all", enable_idempotence=True, linger_ms=5
    )
    async with producer:
        acknowledged = [await producer.send(TOPIC.name, b"%d" % n, partition=n % 4) for n in range(RECORDS)]
        for record in acknowledged:
            await record


async def count(bootstrap_servers: str) -> int:
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap_servers) as consumer:
        ends = await consumer.end_offsets([TopicPartition(TOPIC.name, n) for n in range(4)])
    return sum(ends.values())


async def topics(bootstrap_servers: str) -> set[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        return set(await admin.list_topics())
    finally:
        await admin.close()


async def test_killed_kafka_keeps_every_acknowledged_record(kafka_bootstrap: str, tmp_path: Path) -> None:
    kafka = KafkaBroker(tmp_path)
    await create_topics(await kafka.start(), [TOPIC])
    await produce(kafka.address)

    await kafka.kill()
    await kafka.start()

    assert await count(kafka.address) == RECORDS
    await produce(kafka.address)
    await kafka.stop()


async def test_kafka_moves_to_another_port_with_its_records(kafka_bootstrap: str, tmp_path: Path) -> None:
    async with KafkaBroker(tmp_path) as address:
        await create_topics(address, [TOPIC])
        await produce(address)

    async with KafkaBroker(tmp_path) as moved:
        assert moved != address
        assert await count(moved) == RECORDS


async def test_restarted_embedded_broker_has_its_topics_again(tmp_path: Path) -> None:
    chosen = choose_broker(BrokerChoice.EMBEDDED, tmp_path, EmbeddedBroker(tmp_path).port)
    program = program_with_topics(chosen, [TOPIC], 1)
    process = await start(program, tmp_path / "broker.log", 20)
    assert TOPIC.name in await topics(chosen.backend.address)

    await process.kill()
    process = await start(program, tmp_path / "broker.log", 20)

    assert TOPIC.name in await topics(chosen.backend.address)
    await process.stop()


async def test_create_topics_is_repeatable(broker: Broker) -> None:
    spec = TopicSpec(f"repeatable.{broker.kind}", 3)

    await create_topics(broker.bootstrap_servers, [spec])
    await create_topics(broker.bootstrap_servers, [spec, TopicSpec(f"added.{broker.kind}", 2)])

    assert {spec.name, f"added.{broker.kind}"} <= await topics(broker.bootstrap_servers)


async def test_other_partition_count_is_refused(broker: Broker) -> None:
    spec = TopicSpec(f"counted.{broker.kind}", 3)
    await create_topics(broker.bootstrap_servers, [spec])

    with pytest.raises(PartitionCountError, match="has 3, not 5"):
        await create_topics(broker.bootstrap_servers, [dataclasses.replace(spec, partitions=5)])


async def test_kafka_refuses_what_no_one_declared(kafka_bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    try:
        await admin.describe_topics(["nobody.declared"])
        assert "nobody.declared" not in await admin.list_topics()
    finally:
        await admin.close()


def test_embedded_broker_refuses_another_partition_count(tmp_path: Path) -> None:
    chosen = choose_broker(BrokerChoice.EMBEDDED, tmp_path, 19092)

    check_partitions(chosen, 4)
    with pytest.raises(BackendMissingError, match="FLOOPY_KAFKA__PARTITIONS=6"):
        check_partitions(chosen, 6)


async def test_auto_takes_the_embedded_broker_where_kafka_has_not_been_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOOPY_KAFKA_HOME", str(tmp_path / "nothing"))

    chosen = choose_broker(BrokerChoice.AUTO, tmp_path, 19092)

    assert not chosen.idempotent
    assert "make kafka" in chosen.title


async def test_program_that_cannot_start_says_why(tmp_path: Path) -> None:
    program = dataclasses.replace(EmbeddedBroker(tmp_path).program(), command=("/nowhere/tansu",))

    with pytest.raises(StartError, match="cannot run /nowhere/tansu"):
        await start(program, tmp_path / "broker.log", 20)
