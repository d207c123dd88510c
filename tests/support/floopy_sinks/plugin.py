"""Fixtures: a bench with every topic, on each kind of broker this machine has or on the embedded one."""

from pathlib import Path

import pytest_asyncio

from floopy.testing import Broker, BrokerKind
from floopy_common.chassis.mongo import Mongo
from floopy_sinks.bench import Bench, kafka_settings, make_topics


@pytest_asyncio.fixture
async def bench(broker: Broker, mongo: Mongo, mongo_uri: str, mongo_database: str, tmp_path: Path) -> Bench:
    settings = kafka_settings(broker)
    await make_topics(settings)
    return Bench(settings, mongo, mongo_uri, mongo_database, tmp_path)


@pytest_asyncio.fixture
async def local_bench(
    embedded_bootstrap: str, mongo: Mongo, mongo_uri: str, mongo_database: str, tmp_path: Path
) -> Bench:
    """For what does not depend on the broker: a service killed between two writes to MongoDB."""
    settings = kafka_settings(Broker(BrokerKind.EMBEDDED, embedded_bootstrap))
    await make_topics(settings)
    return Bench(settings, mongo, mongo_uri, mongo_database, tmp_path)
