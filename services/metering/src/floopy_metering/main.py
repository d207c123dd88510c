"""Puts metering together and runs it; the only place that constructs."""

from collections.abc import Sequence

from floopy_common.chassis import failpoints
from floopy_common.chassis.clock import SystemClock
from floopy_common.chassis.consumer import Consumer, LineRecord, open_consumer
from floopy_common.chassis.loop import Loop
from floopy_common.chassis.mongo import Mongo, check_schema, open_mongo
from floopy_common.chassis.outbox import OutboxRelay
from floopy_common.chassis.producer import Producer, open_producer
from floopy_common.chassis.runtime import service_runtime
from floopy_common.domain.segment import Sink
from floopy_common.settings import Settings
from floopy_common.stores.caps import CapStore
from floopy_common.stores.confirming import Confirming
from floopy_common.stores.dead_letters import DeadLetterStore
from floopy_common.stores.ledger import LedgerStore, LedgerTally
from floopy_common.stores.receipts import ReceiptStore
from floopy_common.stores.rollups import RollupStore
from floopy_common.stores.usage_batches import PlannedStore, ReservationStore, UsageBatchStore
from floopy_metering.core.rows import ledger_row
from floopy_metering.core.settling import Settlement
from floopy_metering.core.usage import BY, Accountant, UsagePorts

failpoints.declare(
    {
        "metering.after_dead_letter": "A line's dead letter is durable, its parked row is not there yet.",
        "metering.after_insert": "A delivery's ledger rows are stored.",
        "metering.after_rollup": "A complete segment's usage is stored, its receipt is not.",
        "metering.after_receipt": "A segment's receipt is stored, its offset is not committed.",
        "metering.after_usage": "A batch's usage is recorded, its reservation not settled.",
        "metering.after_settle": "A reservation is settled, the usage does not say so yet.",
    }
)


_SELDOM = 3
"""Scans of the other loops for one of reservations: every open batch is looked at, and events wake it."""
_SPACING = 1.0
"""Seconds between two looks at reservations, however many batches fail or are cancelled meanwhile."""


async def run(settings: Settings) -> None:
    """Consume until told to stop."""
    async with (
        service_runtime(BY, settings) as runtime,
        open_mongo(settings.mongo, BY) as mongo,
        open_producer(settings.kafka) as producer,
        open_consumer(settings.kafka, BY, DeadLetterStore(mongo)) as consumer,
    ):
        await check_schema(mongo)
        outbox, settling = compose(settings, mongo, producer, consumer)
        runtime.ready("mongo", mongo.ping)
        runtime.ready("kafka", consumer.ready)
        stop = runtime.stop
        await runtime.run(consumer.run(stop), outbox.run(stop), settling.run(stop))


def compose(settings: Settings, mongo: Mongo, producer: Producer, consumer: Consumer) -> tuple[Loop, Loop]:
    """Subscribe everything; the loops that relay events and settle reservations."""
    hit = failpoints.Failpoints(settings.fail_at).hit
    usage = UsageBatchStore(mongo)
    outbox = Loop("outbox", OutboxRelay(usage.collection, producer, BY).step, settings.scan.interval)
    accountant = Accountant(
        UsagePorts(
            plans=PlannedStore(mongo),
            ledger=LedgerStore(mongo),
            rollups=RollupStore(mongo),
            receipts=ReceiptStore(mongo),
            usage=usage,
        ),
        now=SystemClock().now,
        announce=outbox.wake,
        hit=hit,
    )
    settlement = Settlement(
        accountant, caps=CapStore(mongo), usage=usage, reservations=ReservationStore(mongo), hit=hit
    )
    scan = settings.scan.interval
    settling = Loop("settling", settlement.step, _SELDOM * scan, spacing=min(_SPACING, scan))
    confirming = Confirming(
        mongo,
        Sink.METERING,
        "usage_ledger",
        park=consumer.park,
        hit=hit,
        before_receipts=accountant.roll_up,
        after_receipts=settlement.segments_confirmed,
        tally=LedgerTally,
    )

    async def take(records: Sequence[LineRecord]) -> None:
        await confirming.take(records, ledger_row)

    consumer.lines(take)
    consumer.wake("batch.failed", settling.wake)
    consumer.wake("batch.cancelled", settling.wake)
    return outbox, settling
