"""Reading the log's bounds and what groups have committed, on both brokers."""

from collections.abc import Awaitable, Callable
from typing import Any

from waiting import eventually

from floopy_common.domain.segment import Sink
from floopy_common.settings import KafkaSettings


async def test_bounds_and_committed_offsets_are_what_they_are(delivery: Any) -> None:
    await delivery.producer.send_batch("batch.line.completed", 2, [(b"k", b"v")] * 5)
    await delivery.commit(Sink.LOGGING, 2, 3)

    offsets = await delivery.offsets().read()

    assert offsets.begin == {0: 0, 1: 0, 2: 0, 3: 0}
    assert offsets.end == {0: 0, 1: 0, 2: 5, 3: 0}
    assert offsets.committed == {Sink.LOGGING: {2: 3}, Sink.METERING: {}, Sink.FEEDBACK: {}}


async def test_a_second_look_sees_what_has_moved(delivery: Any) -> None:
    reader = delivery.offsets()
    assert (await reader.read()).end[1] == 0
    await delivery.producer.send_batch("batch.line.completed", 1, [(b"k", b"v")])
    await delivery.commit(Sink.METERING, 1, 1)

    offsets = await reader.read()

    assert (offsets.end[1], offsets.committed[Sink.METERING]) == (1, {1: 1})


async def test_no_broker_is_no_offsets(delivery: Any) -> None:
    reader = delivery.offsets(KafkaSettings(bootstrap_servers="127.0.0.1:1"))
    assert await reader.read() is None
    assert await reader.read() is None


async def test_a_topic_that_is_not_there_is_unreadable_or_empty(
    delivery: Any,
    make_topic: Callable[[KafkaSettings], Awaitable[None]],
) -> None:
    other = delivery.settings.model_copy(update={"topic_prefix": "no" + delivery.settings.topic_prefix})
    reader = delivery.offsets(other)
    offsets = await reader.read()
    assert offsets is None or not any(offsets.end.values())

    await make_topic(other)

    assert await eventually(reader.read, timeout=20, what="offsets")
