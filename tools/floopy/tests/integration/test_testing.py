"""The fixtures that every package's integration tests start from."""

from aiokafka import AIOKafkaProducer
from pymongo import AsyncMongoClient

from floopy.backends.topics import TopicSpec, create_topics
from floopy.testing import Broker


async def test_mongo_uri_leads_to_a_replica_set(mongo_uri: str, mongo_database: str) -> None:
    async with AsyncMongoClient(mongo_uri) as client:
        await client[mongo_database].rows.insert_one({"_id": 1})

        hello = await client.admin.command("hello")

    assert hello["setName"]


async def test_every_broker_takes_records(broker: Broker) -> None:
    await create_topics(broker.bootstrap_servers, [TopicSpec("testing.plugin", 4)])

    producer = AIOKafkaProducer(
        bootstrap_servers=broker.bootstrap_servers, acks="all", enable_idempotence=broker.idempotent
    )
    async with producer:
        stored = await producer.send_and_wait("testing.plugin", b"record", partition=3)

    assert stored.offset == 0
