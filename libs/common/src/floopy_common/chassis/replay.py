"""Puts dead letters back: the original record, to its topic and its partition."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from floopy_common.chassis.dead_letters import DeadLetter, Record, came_from, new_client, original_headers
from floopy_common.chassis.producer import NotSent
from floopy_common.settings import KafkaSettings
from floopy_common.topics import TOPICS, full_name

_READ_TIMEOUT = 10.0


class Replayer:
    """Reads dead letters where the index says they are, and sends what they hold once more."""

    def __init__(self, settings: KafkaSettings, reader: AIOKafkaConsumer, sender: AIOKafkaProducer) -> None:
        self._settings = settings
        self._reader = reader
        self._sender = sender

    async def replay(self, letter: DeadLetter) -> bool:
        """True once the record is in its topic again; False when the letter is not there any more.

        Raises NotSent when nobody knows.
        """
        try:
            record = await self._read(letter)
            if record is None:
                return False
            async with asyncio.timeout(self._settings.send_timeout):
                await self._sender.send_and_wait(
                    full_name(self._settings.topic_prefix, letter.topic),
                    record.value,
                    record.key,
                    # its segment's other lines are on this partition, and so is the consumer that counts them
                    partition=letter.partition,
                    headers=original_headers(record.headers),
                )
        except (KafkaError, OSError, TimeoutError) as error:
            raise NotSent(f"{letter.topic}: {error!r}") from error
        return True

    async def _read(self, letter: DeadLetter) -> Record | None:
        name = TOPICS[letter.topic].dlq
        if name is None:
            return None
        place = TopicPartition(full_name(self._settings.topic_prefix, name), letter.dlq_partition)
        async with asyncio.timeout(_READ_TIMEOUT):
            self._reader.assign([place])
            first = (await self._reader.beginning_offsets([place]))[place]
            end = (await self._reader.end_offsets([place]))[place]
            if not first <= letter.dlq_offset < end:
                return None
            self._reader.seek(place, letter.dlq_offset)
            record: Record = await self._reader.getone(place)
        # a log that was lost and filled again has something else there
        return record if record.offset == letter.dlq_offset and came_from(record, letter) else None


@asynccontextmanager
async def open_replayer(settings: KafkaSettings) -> AsyncIterator[Replayer]:
    """Connect; NotSent when no broker answers."""
    reader = AIOKafkaConsumer(bootstrap_servers=settings.bootstrap_servers, enable_auto_commit=False)
    sender = new_client(settings)
    try:
        try:
            async with asyncio.timeout(settings.send_timeout):
                await reader.start()
                await sender.start()
        except (KafkaError, OSError, TimeoutError) as error:
            raise NotSent(f"no broker at {settings.bootstrap_servers}: {error!r}") from error
        yield Replayer(settings, reader, sender)
    finally:
        await reader.stop()
        await sender.stop()
