"""Takes what a consumer has fetched as one delivery, a slice in each turn of the event loop."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError

from floopy_common.chassis.dead_letters import Record

_MAX_RECORDS: Final = 2_000
"""Fewer deliveries cost fewer round trips; larger ones memory."""
_POLL_MS: Final = 30
"""An empty poll is followed by a pause of the same length; shorter ones only cost processor time."""
_SLICE: Final = 200
"""Records unpacked before other tasks may run: the client makes an object of each, some 2.5 us."""
_FEW: Final = 1_000
"""A smaller delivery is worth waiting for what the broker has besides: each costs some twenty calls."""


async def take_fetched(
    consumer: AIOKafkaConsumer, topic: str, begun: Callable[[], None]
) -> tuple[Record, ...]:
    """At most `_MAX_RECORDS` of the topic, each partition's in order; none, after a pause, when nothing came.

    `begun` is called once the position is beyond something. A few records are waited after while the broker
    has more of their partitions; where it has none they are handed out in the very turn they were found, so
    that whoever takes them can pause the client before it asks for more.
    """
    records: list[Record] = []
    patience = _POLL_MS
    while len(records) < _MAX_RECORDS:
        wanted = min(_SLICE, _MAX_RECORDS - len(records))
        try:
            slice_ = list(chain(*(await consumer.getmany(timeout_ms=patience, max_records=wanted)).values()))
        except (KafkaError, ConsumerStoppedError):
            if not records:
                raise
            break  # what is in hand would be lost by it; asked again, the client fails again
        if slice_ and not records:
            begun()
        records += slice_
        if len(slice_) == wanted:
            patience = 0
            await asyncio.sleep(0)
        elif (
            not records
            or (patience and not slice_)
            or len(records) >= _FEW
            or is_all(consumer, topic, records)
        ):
            break
        else:
            patience = _POLL_MS
    if not records:
        await asyncio.sleep(_POLL_MS / 1000)
    return tuple(records)


def is_all(consumer: AIOKafkaConsumer, topic: str, records: Sequence[Record]) -> bool:
    """Whether the records go up to where their partitions ended when they were fetched."""
    last = {record.partition: record.offset for record in records}
    held = consumer.assignment()
    for partition, offset in last.items():
        place = TopicPartition(topic, partition)
        # one that was taken away since brings no more
        if place in held and (consumer.highwater(place) or 0) > offset + 1:
            return False
    return True
