"""How subscribers are declared, and where an idle consumer belongs."""

from typing import Any

from aiokafka import TopicPartition
from faststream import AckPolicy

from floopy_common.chassis.consumer import Consumer
from floopy_common.chassis.subscription import _Positions, _target, group_id
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
        assert subscriber.max_records == 1_000
        assert 20 <= subscriber.batch_timeout_ms <= 50
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


class _Looks:
    """Looks at one partition in a row."""

    def __init__(self) -> None:
        self.positions = _Positions()

    def look(self, position: int, target: int, *, batches: int = 1, idle: bool = True) -> bool:
        found = self.positions.stranded(idle, batches, {PLACE: position}, {PLACE: target})
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


def test_a_log_lost_twice_is_noticed_twice() -> None:
    looks = _Looks()
    looks.look(20, 0)
    assert looks.look(20, 0)
    assert not looks.look(20, 20, batches=2)
    assert looks.look(20, 0, batches=2)
