"""Puts logging together and runs it; the only place that constructs."""

from collections.abc import Sequence

from floopy_common.chassis import failpoints
from floopy_common.chassis.consumer import Consumer, LineRecord, open_consumer
from floopy_common.chassis.mongo import Mongo, check_schema, open_mongo
from floopy_common.chassis.runtime import service_runtime
from floopy_common.domain.segment import Sink
from floopy_common.settings import Settings
from floopy_common.stores.confirming import Confirming
from floopy_common.stores.dead_letters import DeadLetterStore
from floopy_logging.core.rows import request_row

BY = "floopy-logging"

failpoints.declare(
    {
        "logging.after_dead_letter": "A line's dead letter is durable, its parked row is not there yet.",
        "logging.after_insert": "A delivery's rows are stored.",
        "logging.after_receipt": "A segment's receipt is stored, its offset is not committed.",
    }
)


async def run(settings: Settings) -> None:
    """Consume until told to stop."""
    async with (
        service_runtime(BY, settings) as runtime,
        open_mongo(settings.mongo, BY) as mongo,
        open_consumer(settings.kafka, BY, DeadLetterStore(mongo)) as consumer,
    ):
        await check_schema(mongo)
        compose(settings, mongo, consumer)
        runtime.ready("mongo", mongo.ping)
        runtime.ready("kafka", consumer.ready)
        await runtime.run(consumer.run(runtime.stop))


def compose(settings: Settings, mongo: Mongo, consumer: Consumer) -> None:
    """Subscribe the log to every line."""
    confirming = Confirming(
        mongo,
        Sink.LOGGING,
        "requests",
        park=consumer.park,
        hit=failpoints.Failpoints(settings.fail_at).hit,
    )

    async def take(records: Sequence[LineRecord]) -> None:
        await confirming.take(records, request_row)

    consumer.lines(take)
