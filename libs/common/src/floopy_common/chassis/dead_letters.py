"""Dead letters: a record that can never be taken goes to `<topic>.dlq` with its bytes and the cause."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from prometheus_client import Counter

from floopy_common.chassis.clock import Clock, SystemClock
from floopy_common.chassis.producer import NotSent
from floopy_common.settings import KafkaSettings
from floopy_common.topics import TOPICS, full_name

_log = logging.getLogger(__name__)

HEADER_PREFIX = "floopy-dlq-"
_MAX_REASON = 500
_OVERHEAD = 64 * 1024
"""More than the cause and framing add to a record."""

DEAD_LETTERS = Counter("floopy_dead_letters_total", "Records put into a dead-letter topic.", ["topic"])

Headers = Sequence[tuple[str, bytes | None]]


class Record(Protocol):
    """A record as the broker gave it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True)
class Unfit:
    """A record that cannot be taken, why, and the line it is about where that is known."""

    record: Record
    reason: str
    line_id: str | None = None
    batch_id: str | None = None


@dataclass(frozen=True)
class DeadLetter:
    """Where an unfit record came from and where it lies now; topics without the prefix."""

    group: str
    topic: str
    partition: int
    offset: int
    reason: str
    line_id: str | None
    batch_id: str | None
    dlq_partition: int
    dlq_offset: int
    at: datetime

    @property
    def id(self) -> str:
        """The same record of the same group is the same letter, however often it is parked."""
        return f"{self.group}:{self.topic}:{self.partition}:{self.offset}"


class DeadLetterIndex(Protocol):
    async def add(self, letters: Sequence[DeadLetter]) -> None:
        """Note where the letters are; noting one again is harmless."""
        ...


class DeadLetters:
    """Sends unfit records of one service; when `park` returns they are durable and noted."""

    def __init__(
        self, settings: KafkaSettings, index: DeadLetterIndex | None = None, clock: Clock | None = None
    ) -> None:
        self._settings = settings
        self._index = index
        self._clock = clock or SystemClock()

    async def park(self, group: str, topic: str, unfit: Sequence[Unfit]) -> None:
        """Raises NotSent when any may not be in the dead-letter topic: take none of them as parked."""
        if not unfit:
            return
        at = self._clock.now()
        places = await self._send(group, topic, unfit, at)
        letters = [
            DeadLetter(
                group=group,
                topic=topic,
                partition=one.record.partition,
                offset=one.record.offset,
                reason=one.reason[:_MAX_REASON],
                line_id=one.line_id,
                batch_id=one.batch_id,
                dlq_partition=partition,
                dlq_offset=offset,
                at=at,
            )
            for one, (partition, offset) in zip(unfit, places, strict=True)
        ]
        DEAD_LETTERS.labels(topic).inc(len(letters))
        for letter in letters:
            extra = {
                "event": "dead_letter",
                "topic": topic,
                "partition": letter.partition,
                "offset": letter.offset,
                "line_id": letter.line_id,
                "reason": letter.reason,
            }
            _log.error("dead letter", extra=extra)
        if self._index is not None:
            await self._index.add(letters)

    async def _send(
        self, group: str, topic: str, unfit: Sequence[Unfit], at: datetime
    ) -> list[tuple[int, int]]:
        """(partition, offset) of each; a connection of its own, because this is rare and sizes differ."""
        name = TOPICS[topic].dlq
        if name is None:
            raise NotSent(f"{topic} is declared without consumers, so it has no dead letters")
        client = new_client(self._settings)
        try:
            async with asyncio.timeout(self._settings.send_timeout):
                await client.start()
                pending = [
                    await client.send(
                        full_name(self._settings.topic_prefix, name),
                        _value(one.record),
                        one.record.key,
                        partition=one.record.partition,
                        headers=[*original_headers(one.record.headers), *_cause(group, topic, one, at)],
                    )
                    for one in unfit
                ]
                done = await asyncio.gather(*pending)
        except (KafkaError, OSError, TimeoutError, AssertionError) as error:
            # aiokafka asserts that the partition exists
            raise NotSent(f"{name}: {error!r}") from error
        finally:
            await _close(client, self._settings.send_timeout)
        return [(metadata.partition, metadata.offset) for metadata in done]


def _value(record: Record) -> bytes | None:
    """The record's own; aiokafka sends no record that has neither key nor value."""
    return b"" if record.key is None and record.value is None else record.value


def original_headers(headers: Headers) -> list[tuple[str, bytes | None]]:
    """The record's own headers, without those a stay in the dead letters has added."""
    return [(name, value) for name, value in headers if not name.startswith(HEADER_PREFIX)]


def came_from(record: Record, letter: DeadLetter) -> bool:
    """Whether the record in a dead-letter topic is this letter."""
    said = dict(record.headers)
    return all(
        said.get(f"{HEADER_PREFIX}{name}") == str(word).encode()
        for name, word in (
            ("group", letter.group),
            ("topic", letter.topic),
            ("partition", letter.partition),
            ("offset", letter.offset),
        )
    )


def _cause(group: str, topic: str, one: Unfit, at: datetime) -> list[tuple[str, bytes]]:
    words = {
        "reason": one.reason[:_MAX_REASON],
        "topic": topic,
        "partition": str(one.record.partition),
        "offset": str(one.record.offset),
        "group": group,
        "at": at.isoformat(timespec="milliseconds"),
    }
    return [(f"{HEADER_PREFIX}{name}", word.encode("utf-8", "replace")) for name, word in words.items()]


def new_client(settings: KafkaSettings) -> AIOKafkaProducer:
    """A producer for records as large as a dead letter may be, not yet connected."""
    return AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers,
        acks="all",
        enable_idempotence=settings.idempotent,
        max_request_size=2 * settings.max_message_bytes + _OVERHEAD,
        request_timeout_ms=int(settings.send_timeout * 1000),
    )


async def _close(client: AIOKafkaProducer, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            await client.stop()
    except (KafkaError, TimeoutError) as error:
        _log.warning("producer closed late", extra={"event": "producer_close", "error": repr(error)})
