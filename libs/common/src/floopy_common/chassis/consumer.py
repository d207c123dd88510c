"""The consumer: line events in batches, lifecycle events one by one, control topics as a mere wake-up.

Every effect is durable before its offset is committed. A record that can never be taken goes to the dead
letters first, and those behind it flow on; anything else that fails is tried again after a pause.
"""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

import msgspec
from prometheus_client import Gauge

from floopy_common.chassis.dead_letters import DeadLetterIndex, DeadLetters, Headers, Record, Unfit
from floopy_common.chassis.loop import in_pieces
from floopy_common.chassis.subscription import Records, Subscription, group_id
from floopy_common.domain.errors import Invalid
from floopy_common.domain.ids import line_id
from floopy_common.events.envelope import CONTENT_TYPE, DATA_VERSION, Envelope, decode
from floopy_common.events.lines import LINE_COMPLETED, LineCompleted, decode_line
from floopy_common.settings import KafkaSettings

__all__ = ["Consumer", "LineRecord", "group_id", "open_consumer"]

_log = logging.getLogger(__name__)

POISON_LIMIT = 1_000
"""Records in a row that cannot be taken: then it is the program that is wrong, not the records."""

_COLLECT_AFTER = 100_000
"""Objects; a delivery of a thousand lines holds some ten thousand. Saves 8 us of 33 us a line in a sink."""

_LARGEST = 999_999_999
"""A line's number has nine digits in its id, so that the order of ids is that of lines."""

_OWN_HEADERS: Headers = (("content-type", CONTENT_TYPE.encode()),)

HALTED = Gauge("floopy_consumer_halted", "1: too many records in a row could not be taken.", ["topic"])


class LineRecord(NamedTuple):
    """A line's outcome and the record it came in."""

    line: LineCompleted
    record: Record


class Halted(Exception):  # noqa: N818 - says what happened
    """Nothing more is taken from this topic until a person has looked."""


class _Guard:
    """Counts unfit records in a row on one topic and stops the topic when there are too many."""

    def __init__(self, topic: str, limit: int) -> None:
        self._topic = topic
        self._limit = limit
        self._in_a_row = 0
        self.halted = False
        HALTED.labels(topic).set(0)

    def count(self, taken: int, unfit: int) -> None:
        """One delivery's outcome."""
        self._in_a_row = unfit if taken else self._in_a_row + unfit

    def check(self) -> None:
        """Raise Halted once the limit is reached."""
        if self._in_a_row < self._limit:
            return
        if not self.halted:
            self.halted = True
            HALTED.labels(self._topic).set(1)
            extra = {"event": "consumer_halted", "topic": self._topic, "records": self._in_a_row}
            _log.critical("too many records in a row cannot be taken", extra=extra)
        raise Halted(f"{self._in_a_row} records of {self._topic} in a row could not be taken")


class Consumer:
    """Subscribes one service; every subscription has a group of its own."""

    def __init__(
        self,
        settings: KafkaSettings,
        service: str,
        index: DeadLetterIndex | None = None,
        poison_limit: int = POISON_LIMIT,
    ) -> None:
        self._settings = settings
        self._service = service
        self._letters = DeadLetters(settings, index)
        self._poison_limit = poison_limit
        self._guards: dict[str, _Guard] = {}
        self._parked = 0
        self.subscriptions: list[Subscription] = []

    def wake(self, topic: str, call: Callable[[], None]) -> None:
        """Call `call` whenever anything arrives; what it says does not matter, MongoDB knows."""

        async def take(_: Records) -> None:
            call()

        self._subscribe(topic, take)

    def lines(self, handle: Callable[[Sequence[LineRecord]], Awaitable[None]]) -> None:
        """Deliver line events, at most two thousand at a time; they are committed when `handle` returns."""

        async def take(records: Records) -> None:
            guard.check()
            fit, unfit = await _sorted_out(records, self._settings.max_message_bytes)
            await self._park(LINE_COMPLETED, unfit)
            self._parked = 0
            if fit:
                await handle(fit)
            guard.count(len(fit) - self._parked, len(unfit) + self._parked)

        guard = self._subscribe(LINE_COMPLETED, take)

    def events(self, topic: str, handle: Callable[[Envelope], Awaitable[None]]) -> None:
        """Deliver lifecycle events in order; Invalid from `handle` makes a dead letter of its event."""

        async def take(records: Records) -> None:
            guard.check()
            unfit = []
            for record in records:
                try:
                    await handle(_event(record, topic, self._settings.max_message_bytes))
                except Invalid as error:
                    unfit.append(Unfit(record, str(error)))
            await self._park(topic, unfit)
            guard.count(len(records) - len(unfit), len(unfit))

        guard = self._subscribe(topic, take)

    async def park(self, refused: Sequence[tuple[LineRecord, str]]) -> None:
        """Make dead letters of lines that a handler cannot store, with the reasons. Raises NotSent."""
        unfit = [
            Unfit(line.record, reason, line.line.line_id, line.line.batch_id) for line, reason in refused
        ]
        await self._park(LINE_COMPLETED, unfit)
        self._parked += len(unfit)

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop`; the broker may come, go and come back. Raises WrongPartitionCount."""
        with _rare_collections():
            tasks = [asyncio.create_task(one.run(stop)) for one in self.subscriptions]
            try:
                for task in asyncio.as_completed(tasks):
                    await task
            finally:
                for pending in tasks:
                    pending.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def ready(self) -> bool:
        """Whether every subscription has its partitions and none is halted."""
        return all(one.ready for one in self.subscriptions) and not any(
            guard.halted for guard in self._guards.values()
        )

    def _subscribe(self, topic: str, take: Callable[[Records], Awaitable[None]]) -> _Guard:
        self.subscriptions.append(Subscription(self._settings, self._service, topic, take))
        self._guards[topic] = _Guard(topic, self._poison_limit)
        return self._guards[topic]

    async def _park(self, topic: str, unfit: Sequence[Unfit]) -> None:
        group = group_id(self._settings.topic_prefix, self._service, topic)
        await self._letters.park(group, topic, unfit)


async def _sorted_out(records: Records, max_bytes: int) -> tuple[list[LineRecord], list[Unfit]]:
    fit: list[LineRecord] = []
    unfit: list[Unfit] = []
    async for piece in in_pieces(records):
        for record in piece:
            try:
                fit.append(LineRecord(_line(record, max_bytes), record))
            except Invalid as error:
                unfit.append(Unfit(record, str(error)))
    return fit, unfit


def _line(record: Record, max_bytes: int) -> LineCompleted:
    line = decode_line(_value(record, max_bytes)).data
    if line.line_id != line_id(line.batch_id, line.line_no):
        raise Invalid("the line id is not that of batch and line")
    segment = line.segment
    if not segment.first_line <= line.line_no <= segment.last_line:
        raise Invalid("the line is not in its segment")
    if (
        segment.first_line < 1
        or segment.last_line > _LARGEST
        or not 0 <= segment.no < line.segments <= _LARGEST
    ):
        raise Invalid("the segment is not one of its batch")
    if not 1 <= segment.lines <= segment.last_line - segment.first_line + 1:
        raise Invalid("the segment cannot have as many lines")
    return line


def _event(record: Record, topic: str, max_bytes: int) -> Envelope:
    try:
        envelope = decode(_value(record, max_bytes))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"not an event: {error}") from error
    if envelope.type != topic or envelope.dataversion != DATA_VERSION:
        raise Invalid(f"{envelope.type} of version {envelope.dataversion} on {topic}")
    return envelope


def _value(record: Record, max_bytes: int) -> bytes:
    """The record's value; Invalid where headers or value are nothing of ours."""
    if record.headers != _OWN_HEADERS:
        for name, value in record.headers:
            _check_header(name, value)
    value = record.value
    if value is None:
        raise Invalid("a record without a value")
    if len(value) > max_bytes:
        raise Invalid(f"{len(value)} bytes; topics take {max_bytes}")
    return bytes(value)


def _check_header(name: str, value: bytes | None) -> None:
    if value is None:
        raise Invalid(f"header {name!r} is null")
    try:
        value.decode()
    except UnicodeDecodeError as error:
        raise Invalid(f"header {name!r} is not UTF-8") from error


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Collect cyclic garbage more rarely than a delivery makes objects, which reference counts free."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@asynccontextmanager
async def open_consumer(
    settings: KafkaSettings, service: str, index: DeadLetterIndex | None = None
) -> AsyncIterator[Consumer]:
    """A consumer for `service`, which connects in `run`, so that a service starts while Kafka is down.

    `index` keeps where dead letters went; a service that only wakes needs none.
    """
    yield Consumer(settings, service, index)
