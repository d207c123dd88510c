"""Pytest plugin: real MongoDB and Kafka for integration tests, one of each per session, and a simulator each.

Load it with `pytest_plugins = ["floopy.testing"]`. Containers where a Docker engine answers, else the
addresses in `FLOOPY_TEST_MONGO` and `FLOOPY_TEST_KAFKA`, else the backends of the local stack.
"""

import asyncio
import os
import tempfile
import uuid
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import assert_never

import pytest
import pytest_asyncio
from pymongo import MongoClient

from floopy import containers
from floopy.backends.backend import Backend, BackendMissingError
from floopy.backends.embedded import EmbeddedBroker
from floopy.backends.kafka import KafkaBroker, KafkaDistribution, default_home
from floopy.backends.mongod import Mongod
from floopy.simulation import OwnSimulator
from floopy_common.chassis.mongo import Document, Mongo, ensure_indexes, open_mongo
from floopy_common.collections import COLLECTIONS, SCHEMA_VERSION
from floopy_common.settings import MongoSettings

MONGO_VARIABLE = "FLOOPY_TEST_MONGO"
KAFKA_VARIABLE = "FLOOPY_TEST_KAFKA"
KAFKA_ONLY_FIXTURE = "kafka_bootstrap"
EACH_BROKER_FIXTURE = "broker"


class Source(StrEnum):
    """Where a backend of this session comes from."""

    DOCKER = "container"
    ADDRESS = "address from the environment"
    LOCAL = "local stack"


class BrokerKind(StrEnum):
    EMBEDDED = "embedded"
    KAFKA = "kafka"


@dataclass(frozen=True)
class Broker:
    """A running broker, and what it can do."""

    kind: BrokerKind
    bootstrap_servers: str

    @property
    def idempotent(self) -> bool:
        """Whether producers may be idempotent or transactional."""
        return self.kind is BrokerKind.KAFKA


def source(variable: str) -> Source:
    if containers.engine_answers():
        return Source.DOCKER
    return Source.ADDRESS if os.environ.get(variable) else Source.LOCAL


@cache
def kafka_missing() -> str | None:
    """Returns why there is no Apache Kafka for this session; fetches it where Java and Maven are."""
    if source(KAFKA_VARIABLE) is not Source.LOCAL:
        return None
    try:
        KafkaDistribution(default_home()).fetch()
    except BackendMissingError as missing:
        return str(missing)
    return None


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Says once which backends this session's tests run on, and what they are left without."""
    if hasattr(config, "workerinput"):  # one of several workers; whoever started it has said so
        return []
    missing = kafka_missing()
    kafka = f"none: {missing}; the embedded broker alone" if missing else source(KAFKA_VARIABLE).value
    return [f"backends: mongodb {source(MONGO_VARIABLE).value}, kafka {kafka}"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test that uses `broker` on every kind of broker this machine has."""
    if EACH_BROKER_FIXTURE in metafunc.fixturenames:
        kinds = [BrokerKind.EMBEDDED] if kafka_missing() else list(BrokerKind)
        metafunc.parametrize(EACH_BROKER_FIXTURE, kinds, ids=str, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what only Apache Kafka can show where there is none; the report says why."""
    kafka_only = [item for item in items if KAFKA_ONLY_FIXTURE in _used_by(item)]
    if kafka_only and kafka_missing():
        config.hook.pytest_deselected(items=kafka_only)
        items[:] = [item for item in items if item not in kafka_only]


def _used_by(item: pytest.Item) -> frozenset[str]:
    return frozenset(getattr(item, "fixturenames", ()))


_RESTING = 3
"""Databases that are left alone before the first is used again: what threads of a test that is over still
write goes where nobody looks, and is gone by then."""


class Databases:
    """Databases with every index, used again and again: making one takes longer than most tests."""

    def __init__(self, uri: str, client: MongoClient[Document]) -> None:
        self._uri = uri
        self._client = client
        self._as_made: dict[str, object] = {}
        self._resting: deque[str] = deque()

    def take(self) -> str:
        """The name of one with nothing in it but what `ensure_indexes` leaves."""
        if len(self._resting) < _RESTING:
            return self._make()
        name = self._resting.popleft()
        self._empty(name)
        return name

    def give_back(self, name: str) -> None:
        """To be used again, unless more than documents has been changed."""
        if self._shape(name) == self._as_made[name]:
            self._resting.append(name)
        else:
            self._client.drop_database(name)

    def drop(self) -> None:
        """All that are left, at the end."""
        for name in self._resting:
            self._client.drop_database(name)

    def _make(self) -> str:
        name = f"test_{uuid.uuid4().hex}"
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(_make_indexes(self._uri, name))
        finally:
            loop.close()
        database = self._client[name]
        for collection in COLLECTIONS.keys() - database.list_collection_names():
            database.create_collection(collection)
        self._as_made[name] = self._shape(name)
        return name

    def _empty(self, name: str) -> None:
        database = self._client[name]
        for collection in COLLECTIONS:
            database[collection].delete_many({"_id": {"$ne": "schema"}} if collection == "meta" else {})
        database["meta"].replace_one({"_id": "schema"}, {"version": SCHEMA_VERSION}, upsert=True)

    def _shape(self, name: str) -> object:
        """Collections with their options and ids, and how many indexes they have."""
        database = self._client[name]
        collections = sorted(database.list_collections(), key=lambda collection: str(collection["name"]))
        return collections, database.command("dbStats")["indexes"]


async def _make_indexes(uri: str, name: str) -> None:
    async with open_mongo(MongoSettings(uri=uri, database=name), "test") as mongo:
        await ensure_indexes(mongo)


@contextmanager
def serving(backend: Backend) -> Iterator[str]:
    """Runs a backend without an event loop of the test's own."""
    loop = asyncio.new_event_loop()
    try:
        yield loop.run_until_complete(backend.start())
    finally:
        loop.run_until_complete(backend.kill())
        loop.close()


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="floopy-test-") as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def mongo_uri() -> Iterator[str]:
    """A replica set; its databases belong to the tests of this session."""
    match source(MONGO_VARIABLE):
        case Source.DOCKER:
            with containers.mongo() as uri:
                yield uri
        case Source.ADDRESS:
            yield os.environ[MONGO_VARIABLE]
        case Source.LOCAL:
            with _scratch() as directory, serving(Mongod(directory, cache_gb=0.5)) as uri:
                yield uri
        case unknown:
            assert_never(unknown)


@pytest.fixture(scope="session")
def databases(mongo_uri: str) -> Iterator[Databases]:
    """The databases of this session's tests."""
    with MongoClient[Document](mongo_uri) as client:
        made = Databases(mongo_uri, client)
        yield made
        made.drop()


@pytest.fixture
def mongo_database(databases: Databases) -> Iterator[str]:
    """The name of a database with every index and nothing in it, this test's own."""
    name = databases.take()
    yield name
    databases.give_back(name)


@pytest.fixture
def bare_database(mongo_uri: str) -> Iterator[str]:
    """The name of a database that is not there yet, dropped after the test."""
    name = f"test_{uuid.uuid4().hex}"
    yield name
    with MongoClient[Document](mongo_uri) as client:
        client.drop_database(name)


@pytest_asyncio.fixture
async def mongo(mongo_uri: str, mongo_database: str) -> AsyncIterator[Mongo]:
    """The test's own database, opened as services open it."""
    async with open_mongo(MongoSettings(uri=mongo_uri, database=mongo_database), "test") as opened:
        yield opened


@pytest.fixture
def simulator() -> Iterator[OwnSimulator]:
    """A provider simulator that this test alone scripts."""
    with _scratch() as directory:
        process = OwnSimulator(directory)
        try:
            yield process
        finally:
            process.end()


@pytest.fixture(scope="session")
def embedded_bootstrap() -> Iterator[str]:
    """The embedded broker, one per session: give topics and groups names of their own."""
    with _scratch() as directory, serving(EmbeddedBroker(directory)) as address:
        yield address


@pytest.fixture(scope="session")
def kafka_bootstrap() -> Iterator[str]:
    """Apache Kafka, one per session; tests that use it are left out where there is none."""
    match source(KAFKA_VARIABLE):
        case Source.DOCKER:
            with containers.kafka() as address:
                yield address
        case Source.ADDRESS:
            yield os.environ[KAFKA_VARIABLE]
        case Source.LOCAL:
            with _scratch() as directory, serving(KafkaBroker(directory)) as address:
                yield address
        case unknown:
            assert_never(unknown)


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each kind of broker this machine has in turn."""
    kind: BrokerKind = request.param
    fixture = "embedded_bootstrap" if kind is BrokerKind.EMBEDDED else KAFKA_ONLY_FIXTURE
    return Broker(kind, request.getfixturevalue(fixture))
