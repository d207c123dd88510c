"""The fixtures that every package's integration tests start from."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from pymongo import AsyncMongoClient, MongoClient
from pymongo.database import Database

from floopy.backends.topics import TopicSpec, create_topics
from floopy.testing import Broker, Databases
from floopy_common.collections import COLLECTIONS


async def test_mongo_uri_leads_to_a_replica_set(mongo_uri: str, bare_database: str) -> None:
    async with AsyncMongoClient(mongo_uri) as client:
        await client[bare_database].rows.insert_one({"_id": 1})

        hello = await client.admin.command("hello")

    assert hello["setName"]


@pytest.fixture
def client(mongo_uri: str) -> Iterator[MongoClient[Any]]:
    with MongoClient[Any](mongo_uri) as opened:
        yield opened


@pytest.fixture
def own_databases(mongo_uri: str, client: MongoClient[Any]) -> Iterator[Databases]:
    made = Databases(mongo_uri, client)
    yield made
    made.drop()


def taken(
    databases: Databases, client: MongoClient[Any], change: Callable[[Database[Any]], Any]
) -> list[str]:
    """The names that six tests get, the first of which makes a change."""
    names = []
    for _ in range(6):
        names.append(databases.take())
        if len(names) == 1:
            change(client[names[0]])
        databases.give_back(names[-1])
    return names


def test_a_database_is_used_again_with_nothing_in_it(own_databases: Databases, client: Any) -> None:
    def fill(database: Database[Any]) -> None:
        for name in COLLECTIONS:
            database[name].insert_one({"_id": "left behind"})
        database["meta"].update_one({"_id": "schema"}, {"$set": {"version": 99}})

    names = taken(own_databases, client, fill)

    assert names[3:] == names[:3], "three in turn"
    found = {name: list(client[names[0]][name].find()) for name in COLLECTIONS}
    assert found == {name: [] for name in COLLECTIONS} | {"meta": [{"_id": "schema", "version": 1}]}
    assert "custom_id" in str(client[names[0]]["requests"].index_information())


@pytest.mark.parametrize(
    "change",
    [
        lambda database: database.drop_collection("requests"),
        lambda database: database["requests"].drop_indexes(),
        lambda database: database["requests"].create_index("more"),
        lambda database: database["more"].insert_one({}),
        lambda database: database.command("collMod", "requests", validator={"custom_id": {"$ne": "x"}}),
    ],
    ids=["collection gone", "indexes gone", "another index", "another collection", "validator"],
)
def test_a_database_that_is_not_as_it_was_made_is_used_by_nobody_else(
    own_databases: Databases, client: Any, change: Callable[[Database[Any]], Any]
) -> None:
    names = taken(own_databases, client, change)

    assert names[0] not in names[1:]
    assert names[0] not in client.list_database_names()


async def test_every_broker_takes_records(broker: Broker) -> None:
    await create_topics(broker.bootstrap_servers, [TopicSpec("testing.plugin", 4)])

    producer = AIOKafkaProducer(
        bootstrap_servers=broker.bootstrap_servers, acks="all", enable_idempotence=broker.idempotent
    )
    async with producer:
        stored = await producer.send_and_wait("testing.plugin", b"record", partition=3)

    assert stored.offset == 0
