"""Fixtures: a bench with every topic, on each kind of broker this machine has."""

from pathlib import Path

import pytest_asyncio

from floopy.testing import Broker
from floopy_common.chassis.mongo import Mongo
from floopy_sinks.bench import Bench, kafka_settings, make_topics


@pytest_asyncio.fixture
async def bench(broker: Broker, mongo: Mongo, mongo_uri: str, mongo_database: str, tmp_path: Path) -> Bench:
    settings = kafka_settings(broker)
    await make_topics(settings)
    return Bench(settings, mongo, mongo_uri, mongo_database, tmp_path)
