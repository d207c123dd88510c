"""The producer: every send is acknowledged by all replicas within a time of our own, or it raises."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from prometheus_client import Counter, Histogram

from floopy_common.domain.errors import Invalid, Transient
from floopy_common.events.envelope import CONTENT_TYPE
from floopy_common.settings import KafkaSettings
from floopy_common.topics import full_name

_log = logging.getLogger(__name__)

_T = TypeVar("_T")
Record = tuple[bytes, bytes]
"""Key and value."""

_HEADERS = [("content-type", CONTENT_TYPE.encode())]
_BATCH_BYTES = 512 * 1024
"""Measured: a request takes some five turns of the event loop, and each may wait for other work. Half of this
costs a tenth of what one process settles; twice as much gains nothing."""
_RECORD_OVERHEAD = 256
"""More than what framing, headers and the batch's own header add to key and value."""
_CLOSE_TIMEOUT = 5.0

SENT = Counter("floopy_records_sent_total", "Records the broker acknowledged.", ["topic"])
SEND_FAILURES = Counter("floopy_send_failures_total", "Sends that were not acknowledged.", ["topic"])
SEND_SECONDS = Histogram("floopy_send_seconds", "Seconds until the broker acknowledged.", ["topic"])


class NotSent(Transient):
    """The broker did not acknowledge; whether it has the records is unknown, sending again is safe."""


class RecordTooLarge(Invalid):
    """A record larger than a topic takes; it will never be sent."""


class _Generation:
    """One underlying producer; everybody who waits for it learns when it is given up."""

    def __init__(self, client: AIOKafkaProducer) -> None:
        self.client = client
        self._retired: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def retire(self) -> None:
        """Once or more."""
        if not self._retired.done():
            self._retired.set_result(None)

    async def wait(self, work: Awaitable[_T], timeout: float) -> _T:
        """The result of `work`; NotSent after `timeout` seconds or when this producer is given up first."""
        task = asyncio.ensure_future(work)
        # a result nobody waits for any more must not be reported as a forgotten exception
        task.add_done_callback(_collect)
        try:
            if not task.done():
                either: set[asyncio.Future[Any]] = {task, self._retired}
                await asyncio.wait(either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise NotSent("given up" if self._retired.done() else f"no answer within {timeout} s")
            return task.result()
        finally:
            # an acknowledgement is not ours to cancel: aiokafka would trip over it when it retries
            if task is not work:
                task.cancel()


def _collect(done: "asyncio.Future[Any]") -> None:
    if not done.cancelled():
        done.exception()


class Producer:
    """Sends to topics by their unprefixed names; connects when first used, again after any failure."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._current: _Generation | None = None
        self._connecting = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def send(self, topic: str, key: bytes, value: bytes) -> None:
        """Return once the broker has the record; the partition follows from the key.

        Raises NotSent (send again) or RecordTooLarge (never send again).
        """
        self._check_size([(key, value)])
        started = time.monotonic()
        async with self._guarded(topic) as generation:
            sending = generation.client.send(self._full(topic), value, key, headers=_HEADERS)
            acknowledged = await generation.wait(sending, self._settings.send_timeout)
            await generation.wait(acknowledged, self._settings.send_timeout)
        self._count(topic, 1, started)

    async def send_batch(self, topic: str, partition: int, records: Sequence[Record]) -> tuple[int, int]:
        """Send in order to one partition; (first offset, last offset).

        Other writers' records may lie between. Raises NotSent or RecordTooLarge; after NotSent any part of
        the records may be there, so send all of them again.
        """
        if not records:
            raise ValueError("a batch needs a record")
        self._check_size(records)
        started = time.monotonic()
        async with self._guarded(topic) as generation:
            offsets = await self._send_all(generation, topic, partition, records)
        self._count(topic, len(records), started)
        return min(first for first, _ in offsets), max(last for _, last in offsets)

    async def close(self) -> None:
        """Give up the connection; sends still under way raise NotSent."""
        generation, self._current = self._current, None
        if generation is not None:
            self._retire(generation)
        if self._closing:
            await asyncio.wait(self._closing)

    async def _send_all(
        self, generation: _Generation, topic: str, partition: int, records: Sequence[Record]
    ) -> list[tuple[int, int]]:
        pending: list[tuple[asyncio.Future[Any], int]] = []
        timeout = self._settings.send_timeout
        known = await generation.wait(generation.client.partitions_for(self._full(topic)), timeout)
        if partition not in known:
            raise NotSent(f"{topic} has {len(known)} partitions, none is number {partition}")
        for batch in _packed(generation.client, records):
            # waits while one batch of this partition is queued behind the one in flight
            queued = generation.client.send_batch(batch, self._full(topic), partition=partition)
            acknowledgement = await generation.wait(queued, timeout)
            acknowledgement.add_done_callback(_collect)
            pending.append((acknowledgement, batch.record_count()))
        offsets = []
        for acknowledgement, count in pending:
            first = (await generation.wait(acknowledgement, timeout)).offset
            if first < 0:
                raise NotSent(f"the broker knows the records of {topic} already but not where they are")
            offsets.append((first, first + count - 1))
        return offsets

    def _check_size(self, records: Sequence[Record]) -> None:
        largest = max(len(key) + len(value) for key, value in records) + _RECORD_OVERHEAD
        if largest > self._settings.max_message_bytes:
            raise RecordTooLarge(f"{largest} bytes; topics take {self._settings.max_message_bytes}")

    @asynccontextmanager
    async def _guarded(self, topic: str) -> AsyncIterator[_Generation]:
        """A connected producer; any failure gives it up, because an idempotent one may never recover."""
        generation = await self._connected()
        try:
            yield generation
        except (NotSent, KafkaError) as error:
            SEND_FAILURES.labels(topic).inc()
            if self._current is generation:
                self._current = None
                self._retire(generation)
            _log.warning("not sent", extra={"event": "not_sent", "topic": topic, "error": repr(error)})
            if isinstance(error, MessageSizeTooLargeError):
                raise RecordTooLarge(f"{topic}: {error}") from error
            raise NotSent(f"{topic}: {error!r}") from error

    async def _connected(self) -> _Generation:
        async with self._connecting:
            if self._current is None:
                self._current = await self._connect()
            return self._current

    async def _connect(self) -> _Generation:
        client = _new_client(self._settings)
        try:
            async with asyncio.timeout(self._settings.send_timeout):
                await client.start()
        except BaseException as error:
            await client.stop()
            if isinstance(error, KafkaError | TimeoutError | OSError):
                raise NotSent(f"no broker at {self._settings.bootstrap_servers}: {error!r}") from error
            raise
        return _Generation(client)

    def _retire(self, generation: _Generation) -> None:
        generation.retire()
        closing = asyncio.create_task(_abandon(generation.client))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _full(self, topic: str) -> str:
        return full_name(self._settings.topic_prefix, topic)

    @staticmethod
    def _count(topic: str, records: int, started: float) -> None:
        SENT.labels(topic).inc(records)
        SEND_SECONDS.labels(topic).observe(time.monotonic() - started)


def _new_client(settings: KafkaSettings) -> AIOKafkaProducer:
    return AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers,
        acks="all",
        enable_idempotence=settings.idempotent,
        # a topic measures whole batches by its largest message
        max_batch_size=min(_BATCH_BYTES, settings.max_message_bytes),
        max_request_size=settings.max_message_bytes,
        request_timeout_ms=int(settings.send_timeout * 1000),
        compression_type=None if settings.compression == "none" else settings.compression,
    )


def _packed(client: AIOKafkaProducer, records: Sequence[Record]) -> Iterator[Any]:
    """Closed batches of at most `_BATCH_BYTES`, or of one larger record."""
    batch = client.create_batch()
    for key, value in records:
        if batch.append(timestamp=None, key=key, value=value, headers=_HEADERS) is None:
            batch.close()
            yield batch
            batch = client.create_batch()
            batch.append(timestamp=None, key=key, value=value, headers=_HEADERS)
    # left open, `send` would add its records to it and shift nobody knows whose offsets
    batch.close()
    yield batch


async def _abandon(client: AIOKafkaProducer) -> None:
    """Close without flushing: `stop` would wait for a broker that may never come back."""
    try:
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            await client._sender.close()  # noqa: SLF001 - no public way to stop sending without flushing
    except (KafkaError, TimeoutError) as error:
        _log.warning("producer closed late", extra={"event": "producer_close", "error": repr(error)})
    try:
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            await client.stop()
    except (KafkaError, TimeoutError) as error:
        _log.warning("producer closed late", extra={"event": "producer_close", "error": repr(error)})


@asynccontextmanager
async def open_producer(settings: KafkaSettings) -> AsyncIterator[Producer]:
    """A producer that connects when first used, so that a service starts while Kafka is down."""
    producer = Producer(settings)
    try:
        yield producer
    finally:
        await producer.close()
