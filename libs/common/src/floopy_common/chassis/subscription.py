"""One consumer group on one topic: FastStream inside, and what it leaves to its user.

FastStream delivers batches and commits after the handler. Here are the rest: starting while the broker is
away, waiting before a failed batch is taken again, and going back when the broker has lost its log.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, cast

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.exceptions import NackMessage
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaAckableMessage
from faststream.kafka.subscriber.usecase import BatchSubscriber
from prometheus_client import Counter, Gauge, Histogram
from typing_extensions import override

from floopy_common.chassis.dead_letters import Record
from floopy_common.chassis.fetching import is_all, take_fetched
from floopy_common.chassis.gathering import Gathering
from floopy_common.domain.errors import FloopyError
from floopy_common.settings import KafkaSettings
from floopy_common.topics import full_name

_log = logging.getLogger(__name__)

Records = tuple[Record, ...]
Take = Callable[[Records], Awaitable[None]]

_FRAMING = 65_536
"""More than what a record batch adds to its records."""
_RETRY_MS = 250
"""aiokafka's pause between attempts at a broker that is away; each attempt logs five lines."""
_REQUEST = 40.0
_WATCH_INTERVAL = 2.0
_LOOK_TIMEOUT = 10.0
_FIRST_DELAY = 0.1
_LONGEST_DELAY = 5.0
_UNKNOWN = -1
_STUCK = 3
"""Failures in a row of the same batch after which this process is no longer ready."""
_GRACE = 15.0
"""Seconds a batch in hand may take when the process is asked to stop."""

CONSUMED = Counter("floopy_records_consumed_total", "Records whose effects are durable.", ["topic"])
CONSUME_FAILURES = Counter("floopy_consume_failures_total", "Batches that are to be taken again.", ["topic"])
CONSUME_SECONDS = Histogram("floopy_consume_seconds", "Seconds one batch took.", ["topic"])
LAG = Gauge("floopy_consumer_lag", "Records of a partition not yet taken.", ["topic", "partition"])
REWOUND = Counter(
    "floopy_positions_rewound_total", "Partitions read again because the broker had lost its log.", ["topic"]
)


class WrongPartitionCount(FloopyError):  # noqa: N818 - says what happened
    """A topic has another number of partitions than the setting says, so segments would go astray."""


def group_id(prefix: str, service: str, topic: str) -> str:
    """The consumer group of one service on one topic: joining a second topic would pause the first."""
    return f"{prefix}{service}.{topic}"


class Subscription:
    """Delivers batches of at most two thousand records to `take`; they are committed once it returns.

    Small ones that follow one another are at least a fifth of a second apart, so that they gather.
    Whatever `take` raises means that nothing of the batch may be committed: it comes again after a pause.
    """

    def __init__(self, settings: KafkaSettings, service: str, topic: str, take: Take) -> None:
        self.topic: Final = topic
        self.group: Final = group_id(settings.topic_prefix, service, topic)
        self._settings = settings
        self._full = full_name(settings.topic_prefix, topic)
        self._take = take
        self._stop = asyncio.Event()
        self._failures = 0
        self._begun = 0
        self._ended = 0
        self._ready = False
        self._positions = _Positions()
        self._gathering = Gathering()

    @property
    def ready(self) -> bool:
        """Whether the broker answers, this process has its partitions, and batches get through."""
        return self._ready and self._failures < _STUCK

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop`, whatever the broker does. Raises WrongPartitionCount."""
        self._stop = stop
        delay = _FIRST_DELAY
        while not stop.is_set():
            started = time.monotonic()
            await self._session(stop)
            if time.monotonic() - started > _LOOK_TIMEOUT:
                delay = _FIRST_DELAY
            await self._rest(delay)
            delay = min(2 * delay, _LONGEST_DELAY)

    def declare(self) -> tuple[KafkaBroker, BatchSubscriber]:
        """A FastStream broker with this one subscriber, not yet connected."""
        broker = KafkaBroker(
            self._settings.bootstrap_servers.split(","),
            client_id=self.group,
            retry_backoff_ms=_RETRY_MS,
            # a broker may let who joins a group wait as long: who gave up before would never get in
            request_timeout_ms=int(max(_REQUEST, self._settings.session_timeout) * 1000),
            consumer_only=True,
            allow_auto_create_topics=False,
            apply_types=False,
            graceful_timeout=_GRACE,
            logger=_log,
            # two lines for every batch; failures have levels of their own
            log_level=logging.DEBUG,
        )
        subscriber = broker.subscriber(
            self._full,
            group_id=self.group,
            ack_policy=AckPolicy.NACK_ON_ERROR,
            no_reply=True,
            auto_offset_reset="earliest",
            batch=True,
            session_timeout_ms=int(self._settings.session_timeout * 1000),
            heartbeat_interval_ms=int(self._settings.session_timeout * 1000 / 3),
            max_partition_fetch_bytes=self._settings.max_message_bytes + _FRAMING,
        )

        async def parse(records: Records) -> KafkaAckableMessage:
            # FastStream's own parser decodes headers, and skips for good what it cannot decode
            consumer = subscriber.consumer
            self._gathering.begun(consumer, len(records), lambda: is_all(consumer, self._full, records))
            return _Delivery(self._done, raw_message=records, body=b"", consumer=consumer)

        async def decode(message: KafkaAckableMessage) -> Records:
            return cast("Records", message.raw_message)

        async def handle(records: Any) -> None:  # FastStream makes a model of a narrower type
            await self._handle(subscriber.consumer, records)

        async def get_msg(consumer: AIOKafkaConsumer) -> Records:
            return await take_fetched(consumer, self._full, self._count_begun)

        # its own takes them all in one turn of the event loop, up to twenty milliseconds
        subscriber.get_msg = get_msg  # type: ignore[method-assign]
        subscriber(handle, parser=parse, decoder=decode)
        return broker, subscriber

    async def _session(self, stop: asyncio.Event) -> None:
        """One connection, from the first attempt to its end."""
        broker, subscriber = self.declare()
        # what the connection before was cut off from is nobody's any more
        self._ended = self._begun
        try:
            try:
                if await _unless(stop, broker.start()):
                    await self._watch(subscriber.consumer, stop)
            finally:
                self._ready = False
                try:
                    await broker.stop()
                finally:
                    self._gathering.forget()
        except (KafkaError, OSError, TimeoutError) as error:
            extra = {"event": "broker_away", "topic": self.topic, "error": repr(error)}
            _log.warning("not consuming", extra=extra)
        except WrongPartitionCount:
            raise
        except Exception:  # noqa: BLE001 - clients trip over what brokers answer; the next connection is another
            extra = {"event": "client_failed", "topic": self.topic}
            _log.exception("not consuming: the client failed", extra=extra)

    async def _watch(self, consumer: AIOKafkaConsumer, stop: asyncio.Event) -> None:
        """Look after the positions until `stop`; aiokafka itself reconnects and rejoins."""
        while not stop.is_set():
            self._check_partitions(consumer)
            try:
                async with asyncio.timeout(_LOOK_TIMEOUT):
                    self._ready = await _unless(stop, self._look(consumer))
            except (KafkaError, OSError, TimeoutError) as error:
                self._ready = False
                extra = {"event": "positions_unknown", "topic": self.topic, "error": repr(error)}
                _log.warning("broker does not answer", extra=extra)
            await self._rest(_WATCH_INTERVAL)

    def _check_partitions(self, consumer: AIOKafkaConsumer) -> None:
        known = consumer.partitions_for_topic(self._full)
        if known and len(known) != self._settings.partitions:
            raise WrongPartitionCount(
                f"{self._full} has {len(known)} partitions, not {self._settings.partitions}"
            )

    async def _look(self, consumer: AIOKafkaConsumer) -> None:
        """Count the lag; go back where an idle consumer stands beyond what the broker remembers of it."""
        places = consumer.assignment()
        begun, ended = self._begun, self._ended
        if not places:
            self._stranded(begun == ended, begun, {})
            return
        first = await consumer.beginning_offsets(places)
        end = await consumer.end_offsets(places)
        # asked for at once, they are one request
        commits = await asyncio.gather(*(consumer.committed(place) for place in places))
        committed = dict(zip(places, commits, strict=True))
        found: dict[TopicPartition, _Stand] = {}
        for place in places:
            target = _target(first[place], committed[place], end[place])
            found[place] = _Stand(await consumer.position(place), target, end[place])
            LAG.labels(self.topic, place.partition).set(max(0, end[place] - found[place].position))
        idle = begun == ended == self._begun
        for place in self._stranded(idle, begun, found):
            # seeking is safe in between: nobody has a batch of this consumer in hand
            consumer.seek(place, found[place].target)
            REWOUND.labels(self.topic).inc()
            extra = {
                "event": "position_rewound",
                "topic": self.topic,
                "partition": place.partition,
                "position": found[place].position,
                "target": found[place].target,
            }
            _log.warning("the broker has lost records or commits", extra=extra)

    def _stranded(
        self, idle: bool, batches: int, found: Mapping[TopicPartition, "_Stand"]
    ) -> Iterable[TopicPartition]:
        if self._positions.is_settled(idle, batches):
            # what failed is somebody else's by now, or the broker has lost it: it comes no more
            self._failures = 0
        return self._positions.stranded(idle, batches, found)

    async def _handle(self, consumer: AIOKafkaConsumer, records: Records) -> None:
        started = time.monotonic()
        try:
            self._check_partitions(consumer)
            await self._take(records)
        except Exception as error:
            CONSUME_FAILURES.labels(self.topic).inc()
            extra = {"event": "batch_failed", "topic": self.topic, "records": len(records)}
            _log.warning("batch failed, to be taken again", extra=extra, exc_info=error)
            self._failures += 1
            await self._rest(min(_FIRST_DELAY * 2 ** min(self._failures, 10), _LONGEST_DELAY))
            raise NackMessage from error
        self._failures = 0
        CONSUMED.labels(self.topic).inc(len(records))
        CONSUME_SECONDS.labels(self.topic).observe(time.monotonic() - started)

    def _count_begun(self) -> None:
        self._begun += 1

    def _done(self) -> None:
        self._ended += 1
        self._gathering.ended()

    async def _rest(self, seconds: float) -> None:
        """Pause; not when the process is to stop."""
        await _unless(self._stop, asyncio.sleep(seconds))


class _Delivery(KafkaAckableMessage):
    """A batch that tells when it is committed or given back: until then the consumer is not idle."""

    def __init__(self, done: Callable[[], None], **fields: Any) -> None:
        super().__init__(**fields)
        self._done = done

    @override
    async def ack(self) -> None:
        try:
            await super().ack()
        finally:
            self._done()

    @override
    async def nack(self) -> None:
        # FastStream rewinds the partitions in turn, and none behind one that has been taken away meanwhile
        held = cast("AIOKafkaConsumer", self.consumer).assignment()
        self.raw_message = tuple(
            record
            for record in cast("tuple[Any, ...]", self.raw_message)
            if TopicPartition(record.topic, record.partition) in held
        )
        try:
            await super().nack()
        finally:
            self._done()


class _Stand(NamedTuple):
    """Where a consumer stands in a partition, where it should with nothing in hand, and where that ends."""

    position: int
    target: int
    end: int


class _Positions:
    """Remembers the last look, because only what two looks in a row agree on is true of an idle consumer."""

    def __init__(self) -> None:
        self._batches = _UNKNOWN
        self._last: dict[TopicPartition, int] = {}
        self._rewound: dict[TopicPartition, tuple[int, int]] = {}

    def is_settled(self, idle: bool, batches: int) -> bool:
        """Whether nothing is in hand, nor has been since the last look."""
        return idle and batches == self._batches

    def stranded(
        self, idle: bool, batches: int, found: Mapping[TopicPartition, _Stand]
    ) -> Iterable[TopicPartition]:
        """Partitions whose position lies beyond what is committed although nothing is in hand.

        One that came back to the same place without a record in between has nothing to read there (markers
        of transactions take up offsets), and is left alone; but not beyond the end, where nothing can have
        been read: joining the group again took it there, by a commit that is older than the log.
        """
        settled = self.is_settled(idle, batches)
        stranded = []
        for place, (at, target, end) in found.items():
            if at <= target:
                self._rewound.pop(place, None)
                continue
            came_back = at <= end and self._rewound.get(place) == (at, target)
            if settled and self._last.get(place) == at and not came_back:
                self._rewound[place] = (at, target)
                stranded.append(place)
        # a batch in hand now may be committed only after the next look
        self._batches = batches if idle else _UNKNOWN
        self._last = {place: stand.position for place, stand in found.items()}
        return stranded


def _target(first: int, committed: int | None, end: int) -> int:
    """Where a consumer with nothing in hand should stand."""
    if committed is None or committed > end:
        return first
    return max(first, committed)


async def _unless(stop: asyncio.Event, work: Awaitable[Any]) -> bool:
    """True when `work` is done; False, and it is cancelled, when `stop` came first."""
    task = asyncio.ensure_future(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if task.cancelled():  # by the client that was waited for, not by who waits here
            raise TimeoutError("the client has cancelled what it was asked")
        if task.done():
            task.result()
            return True
        return False
    finally:
        for pending in (task, stopping):
            pending.cancel()
        await asyncio.gather(task, stopping, return_exceptions=True)
