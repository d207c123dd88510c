"""Puts feedback together and runs it; the only place that constructs."""

from collections.abc import Sequence

from floopy_common.chassis import failpoints
from floopy_common.chassis.clock import SystemClock
from floopy_common.chassis.consumer import Consumer, open_consumer
from floopy_common.chassis.loop import Loop
from floopy_common.chassis.mongo import Mongo, check_schema, open_mongo
from floopy_common.chassis.producer import Producer, open_producer
from floopy_common.chassis.runtime import service_runtime
from floopy_common.domain.segment import Sink
from floopy_common.settings import Settings
from floopy_common.stores.blobs import BlobStore
from floopy_common.stores.confirming import Confirming
from floopy_common.stores.contexts import ContextStore
from floopy_common.stores.dead_letters import DeadLetterStore
from floopy_common.stores.routing_scores import RoutingScoreStore, ScoreTally
from floopy_common.stores.scores import ScoreStore
from floopy_common.stores.segment_runs import SegmentRun
from floopy_feedback.core.rows import RowMaker
from floopy_feedback.core.score import Scorer
from floopy_feedback.core.standings import StandingKeeper
from floopy_feedback.handlers.lines import LineScorer

BY = "floopy-feedback"

failpoints.declare(
    {
        "feedback.after_dead_letter": "A line's dead letter is durable, its parked row is not there yet.",
        "feedback.after_insert": "A delivery's score rows are stored, their events are not sent.",
        "feedback.after_scored_events": "A delivery's events are sent, no receipt is written.",
        "feedback.after_receipt": "A segment's receipt is stored, its offset is not committed.",
    }
)


async def run(settings: Settings) -> None:
    """Consume until told to stop."""
    async with (
        service_runtime(BY, settings) as runtime,
        open_mongo(settings.mongo, BY) as mongo,
        open_producer(settings.kafka) as producer,
        open_consumer(settings.kafka, BY, DeadLetterStore(mongo)) as consumer,
    ):
        await check_schema(mongo)
        standings = compose(settings, mongo, producer, consumer)
        runtime.ready("mongo", mongo.ping)
        runtime.ready("kafka", consumer.ready)
        await runtime.run(consumer.run(runtime.stop), standings.run(runtime.stop))


def compose(settings: Settings, mongo: Mongo, producer: Producer, consumer: Consumer) -> Loop:
    """Subscribe scoring to every line; the loop that keeps the standings of models."""
    hit = failpoints.Failpoints(settings.fail_at).hit
    routing = RoutingScoreStore(mongo)

    async def roll_up(runs: Sequence[SegmentRun]) -> None:
        await routing.roll_up(runs)

    scorer = LineScorer(
        confirming=Confirming(
            mongo,
            Sink.FEEDBACK,
            "scores",
            park=consumer.park,
            hit=hit,
            before_receipts=roll_up,
            tally=ScoreTally,
        ),
        make=RowMaker(contexts=ContextStore(mongo), blobs=BlobStore(mongo), scorer=Scorer()),
        stored=ScoreStore(mongo),
        sender=producer,
        hit=hit,
    )
    consumer.lines(scorer.take)
    keeper = StandingKeeper(standings=routing, sender=producer, now=SystemClock().now)
    return Loop("standings", keeper.step, settings.scan.interval)
