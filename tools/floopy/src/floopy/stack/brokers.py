"""Decides which broker the local system runs on and starts it with its topics."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import assert_never

from aiokafka.errors import KafkaError

from floopy.backends.backend import Backend, BackendMissingError, Program, until
from floopy.backends.embedded import PARTITIONS_BY_ITSELF, EmbeddedBroker
from floopy.backends.kafka import KafkaBroker, KafkaDistribution, default_home
from floopy.backends.topics import TopicSpec, create_topics


class BrokerChoice(StrEnum):
    """What `--broker` takes."""

    AUTO = "auto"
    KAFKA = "kafka"
    EMBEDDED = "embedded"


@dataclass(frozen=True)
class ChosenBroker:
    """A broker to start; producers may be idempotent unless it is the embedded one."""

    backend: Backend
    title: str
    idempotent: bool


def choose_broker(choice: BrokerChoice, data_dir: Path, port: int) -> ChosenBroker:
    """Raises BackendMissingError where the chosen one cannot run."""
    distribution = KafkaDistribution(default_home())
    match choice:
        case BrokerChoice.AUTO:
            if reason := distribution.unusable():
                return _embedded(data_dir, port, f", because {reason}")
        case BrokerChoice.KAFKA:
            distribution.fetch()
        case BrokerChoice.EMBEDDED:
            return _embedded(data_dir, port, "")
        case _:
            assert_never(choice)
    backend = KafkaBroker(data_dir / "kafka", port=port, distribution=distribution)
    return ChosenBroker(backend, "Apache Kafka", idempotent=True)


def _embedded(data_dir: Path, port: int, reason: str) -> ChosenBroker:
    backend = EmbeddedBroker(data_dir / "broker", port=port)
    return ChosenBroker(backend, f"embedded, in memory{reason}", idempotent=False)


def program_with_topics(broker: ChosenBroker, topics: Sequence[TopicSpec], replication: int) -> Program:
    """The broker's program, ready once every topic is there; so also after a restart that lost them."""
    program = broker.backend.program()

    async def ready() -> None:
        await program.ready()
        await until(partial(_created, broker.backend.address, topics, replication), 0.2)

    return replace(program, ready=ready)


async def _created(bootstrap_servers: str, topics: Sequence[TopicSpec], replication: int) -> bool:
    try:
        await create_topics(bootstrap_servers, topics, replication)
    except KafkaError:  # the broker went away again
        return False
    return True


def check_partitions(broker: ChosenBroker, partitions: int) -> None:
    """Refuses a partition count that the embedded broker would not keep to."""
    if not broker.idempotent and partitions != PARTITIONS_BY_ITSELF:
        raise BackendMissingError(
            f"the embedded broker gives a topic that a client asks about {PARTITIONS_BY_ITSELF} partitions; "
            f"FLOOPY_KAFKA__PARTITIONS={partitions} needs Apache Kafka: make kafka"
        )
