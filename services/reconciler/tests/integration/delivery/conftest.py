"""A delivery with a topic of its own, on each kind of broker this machine has."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from floopy.testing import Broker
from floopy_common.chassis.mongo import Mongo
from floopy_common.chassis.producer import open_producer
from floopy_common.settings import KafkaSettings

from .bench import PARTITIONS, TOPIC, Delivery


class Killed(BaseException):
    """Ends a worker where it stands, as far as one can inside a process."""


@pytest.fixture
async def settings(broker: Broker) -> KafkaSettings:
    chosen = KafkaSettings(
        bootstrap_servers=broker.bootstrap_servers,
        topic_prefix=f"{uuid.uuid4().hex}.",
        idempotent=broker.idempotent,
        partitions=PARTITIONS,
        send_timeout=10.0,
    )
    await create_topic(chosen)
    return chosen


async def create_topic(settings: KafkaSettings) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(settings.topic_prefix + TOPIC, PARTITIONS, 1)])
    finally:
        await admin.close()


@pytest.fixture
async def delivery(mongo: Mongo, settings: KafkaSettings, tmp_path: Path) -> AsyncIterator[Delivery]:
    async with open_producer(settings) as producer:
        opened = Delivery(mongo, settings, producer, tmp_path)
        yield opened
        await opened.close()


@pytest.fixture
def make_topic() -> Callable[[KafkaSettings], Awaitable[None]]:
    return create_topic


@pytest.fixture
def killed() -> type[BaseException]:
    return Killed
