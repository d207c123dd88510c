"""Pytest plugin: real MongoDB and Kafka for integration tests, one of each per session, and a simulator each.

Load it with `pytest_plugins = ["floopy.testing"]`. Containers where a Docker engine answers, else the
addresses in `FLOOPY_TEST_MONGO` and `FLOOPY_TEST_KAFKA`, else the backends of the local stack.
"""

import asyncio
import os
import resource
import tempfile
import uuid
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
from floopy_common.chassis.mongo import Mongo, ensure_indexes, open_mongo
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


_MOST_FILES = 0.5
"""Share of the files a process may open after which the session's mongod is started anew."""


class _OwnMongod:
    """This session's mongod, started anew before it has more files open than a process may.

    It keeps a file for every collection and index of databases that were dropped minutes ago.
    """

    def __init__(self, directory: Path) -> None:
        self._backend = Mongod(directory, cache_gb=0.5)
        self._loop = asyncio.new_event_loop()

    def start(self) -> str:
        return self._loop.run_until_complete(self._backend.start())

    def renew(self) -> bool:
        """Called between two tests; True when it was started anew."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        open_files = len(os.listdir(f"/proc/{self._backend.process.pid}/fd"))
        if open_files < _MOST_FILES * limit:
            return False
        self._loop.run_until_complete(self._backend.stop())
        self.start()
        return True

    def end(self) -> None:
        self._loop.run_until_complete(self._backend.kill())
        self._loop.close()


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
def own_mongod() -> Iterator[_OwnMongod | None]:
    """The mongod of this session; None where it has another's."""
    if source(MONGO_VARIABLE) is not Source.LOCAL:
        yield None
        return
    with _scratch() as directory:
        mongod = _OwnMongod(directory)
        try:
            yield mongod
        finally:
            mongod.end()


@pytest.fixture(scope="session")
def mongo_uri(own_mongod: _OwnMongod | None) -> Iterator[str]:
    """A replica set; its databases belong to the tests of this session."""
    match source(MONGO_VARIABLE):
        case Source.DOCKER:
            with containers.mongo() as uri:
                yield uri
        case Source.ADDRESS:
            yield os.environ[MONGO_VARIABLE]
        case Source.LOCAL:
            assert own_mongod is not None
            yield own_mongod.start()
        case unknown:
            assert_never(unknown)


@pytest.fixture
def mongo_database(mongo_uri: str, own_mongod: _OwnMongod | None) -> Iterator[str]:
    """The name of a fresh database, dropped after the test."""
    name = f"test_{uuid.uuid4().hex}"
    yield name
    with MongoClient[dict[str, object]](mongo_uri) as client:
        client.drop_database(name)
    if own_mongod is not None:
        own_mongod.renew()


@pytest_asyncio.fixture
async def mongo(mongo_uri: str, mongo_database: str) -> AsyncIterator[Mongo]:
    """That database, opened as services open it, every index made."""
    async with open_mongo(MongoSettings(uri=mongo_uri, database=mongo_database), "test") as opened:
        await ensure_indexes(opened)
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
