"""Committed offsets of the sinks' consumer groups and the bounds of the log they read."""

import asyncio
import logging
from collections.abc import Mapping, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from floopy_common.domain.segment import Sink
from floopy_common.events.lines import LINE_COMPLETED
from floopy_common.settings import KafkaSettings
from floopy_common.topics import full_name
from floopy_reconciler.ports import Offsets

_log = logging.getLogger(__name__)

_CLOSE_TIMEOUT = 5.0
_FETCH_WAIT_MS = 50
_FETCH_BYTES = 1024
"""Fetches are made for what their answers say of the log, not for the records."""
_LOOK_EVERY = 0.01


class KafkaOffsets:
    """Connects when first used, again after any failure; `groups` are the sinks' group ids.

    After a failure nothing is asked for `pause` seconds: unreadable offsets only ever mean waiting.
    """

    def __init__(
        self, settings: KafkaSettings, groups: Mapping[Sink, str], *, timeout: float = 5.0, pause: float = 2.0
    ) -> None:
        self._settings = settings
        self._groups = groups
        self._timeout = timeout
        self._pause = pause
        self._clients: tuple[AIOKafkaAdminClient, AIOKafkaConsumer] | None = None
        self._asking = asyncio.Lock()
        self._silent_until = 0.0

    async def read(self) -> Offsets | None:
        """None when they cannot be read now."""
        async with self._asking:
            loop = asyncio.get_running_loop()
            if loop.time() < self._silent_until:
                return None
            try:
                async with asyncio.timeout(self._timeout):
                    return await self._read()
            # aiokafka trips over error codes of its own answers: AttributeError and the like
            except (KafkaError, TimeoutError, OSError, ValueError, LookupError, AttributeError) as error:
                _log.warning("offsets not read", extra={"event": "offsets_unreadable", "cause": repr(error)})
                await self.close()
                self._silent_until = loop.time() + self._pause
                return None

    async def close(self) -> None:
        clients, self._clients = self._clients, None
        if clients is not None:
            admin, consumer = clients
            await _quietly(admin.close())
            await _quietly(consumer.stop())

    async def _read(self) -> Offsets:
        admin, consumer = await self._connected()
        topic = full_name(self._settings.topic_prefix, LINE_COMPLETED)
        # the embedded broker cannot list a group's offsets unless it is told of which partitions
        places = [TopicPartition(topic, number) for number in range(self._settings.partitions)]
        committed = {
            sink: {
                place.partition: found.offset
                for place, found in (
                    await admin.list_consumer_group_offsets(group, partitions=places)
                ).items()
                if found.offset >= 0
            }
            for sink, group in self._groups.items()
        }
        begin = await consumer.beginning_offsets(places)
        end = await _ends(consumer, places)
        return Offsets(_by_partition(begin), _by_partition(end), committed)

    async def _connected(self) -> tuple[AIOKafkaAdminClient, AIOKafkaConsumer]:
        if self._clients is None:
            options = {
                "bootstrap_servers": self._settings.bootstrap_servers,
                "request_timeout_ms": int(self._timeout * 1000),
            }
            self._clients = (
                AIOKafkaAdminClient(**options),
                AIOKafkaConsumer(
                    **options, fetch_max_wait_ms=_FETCH_WAIT_MS, max_partition_fetch_bytes=_FETCH_BYTES
                ),
            )
            admin, consumer = self._clients
            await admin.start()
            await consumer.start()
        return self._clients


async def _ends(consumer: AIOKafkaConsumer, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """Where the log ends, as fetching says it.

    Asked for its latest offset, the embedded broker names the first record of the last batch instead.
    """
    latest = await consumer.end_offsets(places)
    consumer.assign(places)
    try:
        for place in places:
            consumer.seek(place, latest[place])
        while any(consumer.highwater(place) is None for place in places):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(_LOOK_EVERY)
        return {place: max(latest[place], consumer.highwater(place)) for place in places}
    finally:
        consumer.unsubscribe()


def _by_partition(offsets: Mapping[TopicPartition, int]) -> dict[int, int]:
    return {place.partition: offset for place, offset in offsets.items()}


async def _quietly(closing: object) -> None:
    try:
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            await closing  # type: ignore[misc]
    except (KafkaError, TimeoutError, OSError) as error:
        _log.warning("offsets client closed late", extra={"event": "offsets_close", "cause": repr(error)})
