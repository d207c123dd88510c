"""Creates topics, and puts right those that a broker has created by itself with another partition count."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import for_code

from floopy.backends.backend import until

TOPIC_ALREADY_EXISTS = 36


class PartitionCountError(Exception):
    """A topic exists with fewer or more partitions than it should have."""


@dataclass(frozen=True)
class TopicSpec:
    """A topic as it should be."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)


async def create_topics(bootstrap_servers: str, topics: Iterable[TopicSpec], replication: int = 1) -> None:
    """Creates what is missing and returns when every topic can be used.

    Raises PartitionCountError where a topic is there with another partition count: repartitioning would
    move keys, so that is for people to decide.
    """
    wanted = {topic.name: topic for topic in topics}
    if not wanted:
        return
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    try:
        await admin.start()
        await _create(admin, wanted, replication)
        await until(partial(_led, admin, wanted), interval=0.05)
        found = await _partitions(admin, wanted)
    finally:
        await admin.close()
    _refuse_other_counts(wanted, found)


async def _create(admin: AIOKafkaAdminClient, wanted: Mapping[str, TopicSpec], replication: int) -> None:
    missing = wanted.keys() - set(await admin.list_topics())
    if not missing:
        return
    topics = [wanted[name] for name in sorted(missing)]
    response = await admin.create_topics(
        [NewTopic(t.name, t.partitions, replication, topic_configs=dict(t.config)) for t in topics]
    )
    for name, code, *message in response.topic_errors:
        if code not in {0, TOPIC_ALREADY_EXISTS}:
            raise for_code(code)(f"topic {name}: {message[0] if message else ''}")


async def _led(admin: AIOKafkaAdminClient, wanted: Mapping[str, TopicSpec]) -> bool:
    """Tells whether every partition has a leader; right after the creation some do not."""
    topics = await admin.describe_topics(sorted(wanted))
    return not any(
        topic["error_code"] or any(p["error_code"] for p in topic["partitions"]) for topic in topics
    )


async def _partitions(admin: AIOKafkaAdminClient, wanted: Mapping[str, TopicSpec]) -> dict[str, int]:
    topics = await admin.describe_topics(sorted(wanted))
    return {topic["topic"]: len(topic["partitions"]) for topic in topics}


def _refuse_other_counts(wanted: Mapping[str, TopicSpec], found: Mapping[str, int]) -> None:
    wrong = [
        f"{name} has {found[name]}, not {topic.partitions}"
        for name, topic in wanted.items()
        if found[name] != topic.partitions
    ]
    if wrong:
        raise PartitionCountError(f"partition counts differ: {', '.join(wrong)}")
