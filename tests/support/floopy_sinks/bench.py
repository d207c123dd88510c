"""A sink under test: topics and a database of its own, and the real service process."""

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from pymongo import AsyncMongoClient
from waiting import eventually, is_ready

from floopy.backends.ports import free_port
from floopy.backends.process import ChildProcess, tail
from floopy.backends.topics import TopicSpec, create_topics
from floopy.testing import Broker
from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.domain.segment import partition_of
from floopy_common.events.lines import LINE_COMPLETED, LineCompleted
from floopy_common.settings import KafkaSettings
from floopy_common.topics import creation_list, full_name
from floopy_sinks.lines import HEADERS, encoded

PARTITIONS = 4


def kafka_settings(broker: Broker, **changes: Any) -> KafkaSettings:
    """Settings with a topic prefix that nobody else has."""
    given: dict[str, Any] = {
        "bootstrap_servers": broker.bootstrap_servers,
        "topic_prefix": f"{uuid.uuid4().hex[:12]}.",
        "idempotent": broker.idempotent,
        "send_timeout": 10.0,
        "partitions": PARTITIONS,
        # the least Kafka takes: a process that follows a killed one waits for its end
        "session_timeout": 6.0,
    }
    return KafkaSettings(**(given | changes))


async def make_topics(settings: KafkaSettings, *, without: str | None = None) -> None:
    """Every topic, as the topics job makes them, but for one."""
    rows = creation_list(settings.topic_prefix, settings.partitions, settings.max_message_bytes)
    rows = [row for row in rows if row[0] != f"{settings.topic_prefix}{without}"]
    await create_topics(
        settings.bootstrap_servers, [TopicSpec(name, count, config) for name, count, config in rows]
    )


class Bench:
    """Produces to the topics, reads them and the database, and runs services against both."""

    def __init__(
        self, settings: KafkaSettings, mongo: Mongo, mongo_uri: str, database: str, logs: Path
    ) -> None:
        self.settings = settings
        self.mongo = mongo
        self._env = {
            "FLOOPY_MONGO__URI": mongo_uri,
            "FLOOPY_MONGO__DATABASE": database,
            "FLOOPY_KAFKA__BOOTSTRAP_SERVERS": settings.bootstrap_servers,
            "FLOOPY_KAFKA__TOPIC_PREFIX": settings.topic_prefix,
            "FLOOPY_KAFKA__IDEMPOTENT": str(settings.idempotent).lower(),
            "FLOOPY_KAFKA__PARTITIONS": str(settings.partitions),
            "FLOOPY_KAFKA__SESSION_TIMEOUT": str(settings.session_timeout),
            "FLOOPY_SCAN__INTERVAL": "0.2",
        }
        self._mongo_uri, self._database = mongo_uri, database
        self._logs = logs
        self._started = 0

    @asynccontextmanager
    async def service(self, name: str, **env: str) -> AsyncIterator[ChildProcess]:
        """The real service process; killed at the end if it still runs."""
        self._started += 1
        port = free_port()
        log = self._logs / f"{name}-{self._started}.log"
        process = ChildProcess.start(
            name, (str(_script(name)),), log, {**self._env, "FLOOPY_METRICS_PORT": str(port), **env}
        )
        try:
            if "FLOOPY_FAIL_AT" not in env:
                await eventually(lambda: _is_ready(port, process), what=f"{name} ready")
            yield process
        finally:
            await process.stop()
            print(tail(log, 20))

    async def floopy(self, *words: str) -> tuple[int, str]:
        """Exit code and standard output of the command line."""
        command = await asyncio.create_subprocess_exec(
            str(_script("floopy")), *words, env={**os.environ, **self._env}, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await command.communicate()
        return command.returncode or 0, output.decode()

    async def produce(self, lines: Sequence[LineCompleted]) -> tuple[int, int]:
        """Emit lines of one segment; (partition, offset of the last)."""
        where = partition_of(lines[0].batch_id, lines[0].segment.no, self.settings.partitions)
        offsets = await self.send(LINE_COMPLETED, where, [(k, v, HEADERS) for k, v in encoded(lines)])
        return where, offsets[-1]

    async def send(
        self, topic: str, partition: int, records: Sequence[tuple[bytes | None, bytes | None, Any]]
    ) -> list[int]:
        """Anything at all, in order; the offsets."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.settings.bootstrap_servers, acks="all", max_request_size=3_000_000
        )
        await producer.start()
        try:
            pending = [
                await producer.send(
                    full_name(self.settings.topic_prefix, topic),
                    value,
                    key,
                    partition=partition,
                    headers=headers,
                )
                for key, value, headers in records
            ]
            return [(await one).offset for one in pending]
        finally:
            await producer.stop()

    async def read(self, topic: str, count: int, timeout: float = 20.0) -> list[Any]:
        """The first `count` records of a topic, over all partitions."""
        name = full_name(self.settings.topic_prefix, topic)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.settings.bootstrap_servers, auto_offset_reset="earliest"
        )
        await consumer.start()
        found: list[Any] = []
        try:
            consumer.assign([TopicPartition(name, number) for number in range(self.settings.partitions)])
            async with asyncio.timeout(timeout):
                while len(found) < count:
                    for records in (await consumer.getmany(timeout_ms=100)).values():
                        found += records
        finally:
            await consumer.stop()
        return found

    async def committed(self, group: str, topic: str, partition: int) -> int:
        """The offset the group would go on at; 0 where it has none."""
        place = TopicPartition(full_name(self.settings.topic_prefix, topic), partition)
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.bootstrap_servers)
        await admin.start()
        try:
            offsets = await admin.list_consumer_group_offsets(group, partitions=[place])
        finally:
            await admin.close()
        return max(0, offsets[place].offset) if place in offsets else 0

    async def caught_up(self, group: str, partition: int, offset: int) -> None:
        """Wait until the group has committed `offset` of the line topic."""

        async def committed() -> bool:
            return await self.committed(group, LINE_COMPLETED, partition) > offset

        await eventually(committed, what=f"{group} past offset {offset} of partition {partition}")

    async def accept_only(self, collection: str, validator: Document) -> None:
        """Have MongoDB refuse every document of a collection that does not match; {} takes all."""
        async with AsyncMongoClient[Document](self._mongo_uri) as client:
            await client[self._database].command("collMod", collection, validator=validator)

    async def rows(self, collection: str) -> list[Document]:
        """Every document, by `_id`."""
        return await self.mongo.collection(collection).find_all({}, sort=[("_id", 1)])

    async def receipts(self, count: int) -> list[Document]:
        """The receipts, once there are `count`."""

        async def found() -> list[Document] | None:
            rows = await self.rows("receipts")
            return rows if len(rows) == count else None

        return await eventually(found, what=f"{count} receipts")


def _script(name: str) -> Path:
    return Path(sys.executable).parent / name


async def _is_ready(port: int, process: ChildProcess) -> bool:
    if process.returncode is not None:
        raise AssertionError(f"{process.name} ended: {tail(process.log, 20)}")
    return await is_ready(f"http://127.0.0.1:{port}")
