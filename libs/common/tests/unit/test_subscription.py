"""How subscribers are declared, and where an idle consumer belongs."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError
from faststream import AckPolicy

from floopy_common.chassis.consumer import Consumer
from floopy_common.chassis.subscription import Subscription, _Delivery, _Positions, _Stand, _target, group_id
from floopy_common.settings import KafkaSettings

PLACE = TopicPartition("t", 0)


async def _nothing(_: Any) -> None:
    pass


def make_consumer() -> Consumer:
    consumer = Consumer(KafkaSettings(topic_prefix="p."), "floopy-x")
    consumer.lines(_nothing)
    consumer.events("batch.failed", _nothing)
    consumer.wake("batch.created", lambda: None)
    return consumer


def test_every_subscriber_commits_after_its_handler_and_reads_from_the_start() -> None:
    groups = set()
    for subscription in make_consumer().subscriptions:
        broker, subscriber = subscription.declare()

        assert broker.subscribers == [subscriber]
        assert subscriber.ack_policy is AckPolicy.NACK_ON_ERROR
        assert subscriber._connection_args["enable_auto_commit"] is False
        assert subscriber._connection_args["auto_offset_reset"] == "earliest"
        assert subscriber._no_reply
        assert broker.config.allow_auto_create_topics is False
        assert broker.config.logger.params_storage.get_logger(context=broker.context) is not None
        groups.add(subscriber.group_id)
    assert groups == {
        f"p.floopy-x.{topic}" for topic in ("batch.line.completed", "batch.failed", "batch.created")
    }


def test_a_group_is_named_after_service_and_topic_behind_the_prefix() -> None:
    assert group_id("p.", "floopy-metering", "batch.failed") == "p.floopy-metering.batch.failed"


def test_an_idle_consumer_belongs_where_it_has_committed() -> None:
    assert _target(first=0, committed=20, end=30) == 20
    assert _target(first=25, committed=20, end=30) == 25


def test_without_a_commit_or_beyond_the_log_it_belongs_at_the_start() -> None:
    assert _target(first=5, committed=None, end=30) == 5
    assert _target(first=0, committed=20, end=10) == 0


class _Places:
    """Stands where the client is: has one partition, and refuses to seek in any other."""

    def __init__(self) -> None:
        self.sought: list[tuple[TopicPartition, int]] = []

    def assignment(self) -> set[TopicPartition]:
        return {PLACE}

    def seek(self, partition: TopicPartition, offset: int) -> None:
        if partition != PLACE:
            raise IllegalStateError(f"{partition} is not assigned")
        self.sought.append((partition, offset))


async def test_a_batch_given_back_is_read_again_though_one_of_its_partitions_was_taken_away() -> None:
    records = [SimpleNamespace(topic="t", partition=p, offset=o) for p, o in ((1, 3), (0, 7), (0, 8))]
    places, ended = _Places(), []
    delivery = _Delivery(lambda: ended.append(1), raw_message=tuple(records), body=b"", consumer=places)

    await delivery.nack()

    assert places.sought == [(PLACE, 7)]
    assert ended == [1]


async def test_a_failed_batch_that_comes_no_more_does_not_keep_the_consumer_unready() -> None:
    (subscription, *_) = make_consumer().subscriptions
    subscription._ready, subscription._failures = True, 3
    nowhere: Any = SimpleNamespace(assignment=set)
    await subscription._look(nowhere)
    assert not subscription.ready
    subscription._begun = subscription._ended = 1

    await subscription._look(nowhere)
    assert not subscription.ready
    await subscription._look(nowhere)
    assert subscription.ready


class _Looks:
    """Looks at one partition in a row."""

    def __init__(self) -> None:
        self.positions = _Positions()

    def look(
        self, position: int, target: int, *, end: int = 1_000, batches: int = 1, idle: bool = True
    ) -> bool:
        found = self.positions.stranded(idle, batches, {PLACE: _Stand(position, target, end)})
        return list(found) == [PLACE]


def test_a_position_beyond_what_is_committed_is_stranded_when_two_looks_agree() -> None:
    looks = _Looks()
    assert not looks.look(20, 0)
    assert looks.look(20, 0)


def test_a_position_that_moves_or_has_a_batch_in_hand_is_left_alone() -> None:
    looks = _Looks()
    assert not looks.look(20, 0)
    assert not looks.look(30, 0)
    assert not looks.look(30, 0, batches=2)
    assert not looks.look(30, 0, batches=2, idle=False)


def test_a_batch_in_hand_at_the_look_before_counts_as_news() -> None:
    looks = _Looks()
    assert not looks.look(20, 0, idle=False)
    assert not looks.look(20, 0)
    assert looks.look(20, 0)


def test_a_position_that_comes_back_without_a_record_in_between_is_left_alone() -> None:
    looks = _Looks()
    looks.look(20, 19)
    assert looks.look(20, 19)
    assert not looks.look(20, 19)


def test_a_position_that_the_group_puts_beyond_the_end_again_is_put_back_again() -> None:
    looks = _Looks()
    looks.look(2_000, 0, end=80)
    assert looks.look(2_000, 0, end=80)

    # joined anew in between: the group remembers a commit that is older than the log
    assert looks.look(2_000, 0, end=80)


def test_a_log_lost_twice_is_noticed_twice() -> None:
    looks = _Looks()
    looks.look(20, 0)
    assert looks.look(20, 0)
    assert not looks.look(20, 20, batches=2)
    assert looks.look(20, 0, batches=2)


class _Client:
    """Stands where FastStream's broker is: its starts end one after the other as it is told."""

    def __init__(
        self, stop: asyncio.Event, *failures: BaseException, closing: Exception | None = None
    ) -> None:
        self._failures = list(failures)
        self._stop = stop
        self._closing = closing

    async def start(self) -> None:
        if not self._failures:
            self._stop.set()
            return
        raise self._failures.pop(0)

    async def stop(self) -> None:
        closing, self._closing = self._closing, None
        if closing is not None:
            raise closing


@pytest.mark.parametrize(
    "failure",
    [AttributeError("'NoneType' object"), asyncio.CancelledError(), KafkaError(), OSError()],
    ids=repr,
)
@pytest.mark.parametrize("closing", [None, RuntimeError("closed already")], ids=repr)
async def test_whatever_the_client_trips_over_it_is_connected_again(
    failure: BaseException, closing: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = asyncio.Event()
    subscription = Subscription(KafkaSettings(), "floopy-x", "batch.created", _nothing)
    client = _Client(stop, failure, closing=closing)
    monkeypatch.setattr(subscription, "declare", lambda: (client, SimpleNamespace(consumer=None)))

    async with asyncio.timeout(5):
        await subscription.run(stop)

    assert not subscription.ready
