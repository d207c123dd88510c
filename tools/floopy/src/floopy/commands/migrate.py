"""`floopy migrate`: indexes and topics, before the services start."""

import asyncio
import sys

from floopy.backends.topics import PartitionCountError, TopicSpec, create_topics
from floopy.commands.failure import fail
from floopy_common.chassis.mongo import check_schema, ensure_indexes, open_mongo
from floopy_common.domain.errors import FloopyError
from floopy_common.settings import Settings
from floopy_common.topics import creation_list


def migrate() -> None:
    """Create every index and topic of the environment's MongoDB and Kafka; repeat as often as you like."""
    settings = Settings()
    try:
        asyncio.run(_run(settings))
    except (FloopyError, PartitionCountError) as error:
        fail(f"floopy migrate: {error}")
    sys.stdout.write(f"indexes of {settings.mongo.database} and all topics are there\n")


async def _run(settings: Settings) -> None:
    async with open_mongo(settings.mongo, "floopy-migrate") as mongo:
        await check_schema(mongo)
        await ensure_indexes(mongo)
    kafka = settings.kafka
    rows = creation_list(kafka.topic_prefix, kafka.partitions, kafka.max_message_bytes)
    topics = [TopicSpec(name, partitions, config) for name, partitions, config in rows]
    await create_topics(kafka.bootstrap_servers, topics, kafka.replication)
