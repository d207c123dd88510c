"""Puts the reconciler together and runs its loops; the only place that constructs anything."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from floopy_common.chassis import failpoints
from floopy_common.chassis.clock import SystemClock
from floopy_common.chassis.consumer import group_id, open_consumer
from floopy_common.chassis.failpoints import Failpoints
from floopy_common.chassis.heap import bound_heap
from floopy_common.chassis.loop import Bells, Loop
from floopy_common.chassis.mongo import Mongo, check_schema, open_mongo
from floopy_common.chassis.outbox import OutboxRelay
from floopy_common.chassis.producer import Producer, open_producer
from floopy_common.chassis.runtime import Runtime, service_runtime
from floopy_common.chassis.secrets import Keyring
from floopy_common.domain.segment import Sink
from floopy_common.events.lines import LINE_COMPLETED
from floopy_common.providers.clients import open_clients
from floopy_common.providers.formats import RESULT_FORMATS
from floopy_common.providers.port import ProviderDirectory
from floopy_common.settings import KafkaSettings, Settings, SettleSettings
from floopy_common.stores.auditing import AuditStore
from floopy_common.stores.batches import BatchStore
from floopy_common.stores.blobs import BlobStore
from floopy_common.stores.ending import EndingStore
from floopy_common.stores.files import FileStore
from floopy_common.stores.finishing import PlannedLines, SegmentProgressStore, TurnStore
from floopy_common.stores.listings import ListingStore
from floopy_common.stores.polling import PollStore
from floopy_common.stores.segments import SegmentInputs, SegmentStore
from floopy_common.stores.summaries import SummaryStore
from floopy_common.stores.sweeping import BlobSweeper, EndedStore
from floopy_reconciler.adapters.archives import ScratchArchives
from floopy_reconciler.adapters.offsets import KafkaOffsets
from floopy_reconciler.adapters.renderer import RenderProcess
from floopy_reconciler.core.agenda import Agenda, open_agenda
from floopy_reconciler.core.audit import Auditor, AuditTimes
from floopy_reconciler.core.cleanup import Cleanup, CleanupTimes
from floopy_reconciler.core.collector import Collector
from floopy_reconciler.core.emit import Emitter, Gate
from floopy_reconciler.core.finalise import Finaliser
from floopy_reconciler.core.listing import Lister
from floopy_reconciler.core.look import Pace
from floopy_reconciler.core.materials import Materials
from floopy_reconciler.core.poll import Poller
from floopy_reconciler.core.pool import Pool, Pools
from floopy_reconciler.core.ready import ReadySegments
from floopy_reconciler.core.recount import Recount
from floopy_reconciler.core.refuse import Backoff, Refuser
from floopy_reconciler.core.rendering import Here, SegmentRenderer
from floopy_reconciler.core.retry import RetryPolicy
from floopy_reconciler.core.schedule import Schedule
from floopy_reconciler.core.segments import SegmentPools, SegmentWorker
from floopy_reconciler.core.settle import Patience, Settler
from floopy_reconciler.core.sweep import Sweeper, SweepTimes
from floopy_reconciler.core.wind_up import Graces, Rhythm, Wakers, WindUp
from floopy_reconciler.metrics import AuditMetrics, PrometheusReports, SegmentMetrics

NAME = "floopy-reconciler"

FAILPOINTS = {
    "cancel.after_provider_call": "the provider has taken a cancel; the shard does not say so yet",
    "settle.after_download": "a provider batch's results are on this machine's disk only",
    "settle.after_archive": "results are archived; the shard is not settled",
    "settle.after_retry_shard": "the retry shard is there; its parent is not settled",
    "settle.after_settle": "the shard is settled; nobody has been told",
    "segment.after_claim": "a segment is claimed; nothing of it is written",
    "segment.after_output_part": "a segment's output part is stored; no manifest names it",
    "segment.after_error_part": "a segment's parts are stored; no manifest names them",
    "segment.after_manifest": "a segment's manifest is durable; none of its events has left",
    "segment.after_first_send": "some of a segment's events have left",
    "segment.after_send": "a segment's events have left; the segment does not say so yet",
    "segment.after_emitted": "a segment is emitted; nobody has been told",
    "audit.after_claim": "a batch is claimed for its audit",
    "audit.after_confirm": "segments are marked as confirmed; the batch's numbers are older",
    "audit.after_recount": "rows have been counted; the batch does not say so yet",
    "audit.after_record": "the batch has its numbers",
    "finalise.after_files": "output and error file are there; the batch does not name them",
    "finalise.after_transition": "the batch is terminal; its event has not been relayed",
}
failpoints.declare(FAILPOINTS)

_SPACING = 0.05
"""Seconds between two steps of a loop that many things wake, each of which would cost a look around."""
_SCANS_PER_TURN = 5
"""What moves a batch gives it a turn at once, so turns nobody asked for are for what a crash left unsaid."""
_SEGMENTS = 3
"""Segments one process has in hand: while one is rendered the one before is sent, the next one read."""
_SMALL_JOBS = 32
"""Small segments, and small results, one process has in hand at the same time besides the others."""
_EMIT_WAIT = (0.5, 30.0)
"""Shortest and longest pause in seconds after a send the broker did not acknowledge."""
_STUCK_FOR = 30.0
"""Seconds before a segment that cannot be rendered is looked at again."""
_INPUTS_KEPT = 3_600.0
"""Seconds a provider that does not delete an uploaded input is asked again."""
_LONGEST_PAUSE = 60.0
"""Most seconds between two tries of what runs after a batch's end."""
_READERS = 600.0
"""Most seconds that readers of a blob get once it is condemned."""


@dataclass(frozen=True)
class Base:
    """What every part of the service stands on."""

    settings: Settings
    mongo: Mongo
    owner: str
    blobs: BlobStore
    batches: BatchStore
    turns: TurnStore
    summaries: SummaryStore
    audits: AuditStore
    archives: ScratchArchives
    providers: ProviderDirectory
    producer: Producer
    clock: SystemClock
    bells: Bells
    agenda: Agenda
    ready: ReadySegments
    hit: Callable[[str], None]
    reports: PrometheusReports

    async def seen(self, batch_id: str) -> None:
        """The batch shows what a look at one of its provider batches has found."""
        await self.summaries.refresh(batch_id)

    async def changed(self, batch_id: str) -> None:
        """The batch has its turn at once, in which it comes to show what moved."""
        self.agenda.ask(batch_id)
        self.bells.ring("turns")()

    async def audit(self, batch_id: str) -> None:
        """The batch has something to be confirmed: sinks take a moment, then its audit is due."""
        await self.audits.wake(batch_id, self.settings.audit.interval / 4)


async def run(settings: Settings) -> None:
    """Run until the process is told to stop."""
    bound_heap()
    async with (
        service_runtime(NAME, settings) as runtime,
        open_mongo(settings.mongo, NAME) as mongo,
        open_producer(settings.kafka) as producer,
        open_consumer(settings.kafka, NAME) as consumer,
        open_base(settings, runtime, mongo, producer) as base,
        open_pools(settings, base.bells) as pools,
        open_renderer(settings.settle) as renderer,
        open_segment_pools(base.bells) as segment_pools,
        open_offsets(settings.kafka) as offsets,
    ):
        turns, search = turns_loop(base)
        segments, emit_again = segments_loop(base, renderer, segment_pools)
        loops = [
            looks_loop(base, pools),
            turns,
            segments,
            audit_loop(base, offsets, emit_again),
            outbox_loop(base),
            cleanup_loop(base),
            sweep_loop(base),
        ]
        base.bells.hang(*loops)
        consumer.wake("batch.submitted", base.bells.ring("looks"))
        consumer.wake("batch.cancel.requested", search)
        runtime.ready("mongo", mongo.ping)
        runtime.ready("consumer", consumer.ready)
        await runtime.run(consumer.run(runtime.stop), *(loop.run(runtime.stop) for loop in loops))


@asynccontextmanager
async def open_base(
    settings: Settings, runtime: Runtime, mongo: Mongo, producer: Producer
) -> AsyncIterator[Base]:
    await check_schema(mongo)  # before the first write
    blobs, turns = BlobStore(mongo), TurnStore(mongo)
    async with (
        open_agenda(turns) as agenda,
        open_clients(mongo, settings, Keyring(settings.secret_key)) as clients,
    ):
        yield Base(
            settings=settings,
            mongo=mongo,
            owner=runtime.owner,
            blobs=blobs,
            batches=BatchStore(mongo),
            turns=turns,
            summaries=SummaryStore(mongo),
            audits=AuditStore(mongo, runtime.owner, settings.lease.ttl),
            archives=ScratchArchives(
                settings.work_dir / "archives",
                blobs,
                max_result=settings.settle.max_result,
                max_total=settings.settle.scratch,
            ),
            providers=clients,
            producer=producer,
            clock=SystemClock(),
            bells=Bells(),
            agenda=agenda,
            ready=ReadySegments(),
            hit=Failpoints(settings.fail_at).hit,
            reports=PrometheusReports(),
        )


@asynccontextmanager
async def open_pools(settings: Settings, bells: Bells) -> AsyncIterator[Pools]:
    wake = bells.ring("looks")
    looks, downloads = settings.poll.concurrency, settings.settle.concurrency
    pools = Pools(
        looks=Pool(looks, max(1, looks // 2), wake, wake_from=max(1, looks // 4)),
        listings=Pool(max(1, looks // 2), 1, wake),
        downloads=Pool(downloads, max(1, downloads // 2), wake),
        small_downloads=Pool(_SMALL_JOBS, _SMALL_JOBS // 2, wake, wake_from=_SMALL_JOBS // 4),
    )
    try:
        yield pools
    finally:
        await pools.close()


@asynccontextmanager
async def open_renderer(settings: SettleSettings) -> AsyncIterator[SegmentRenderer]:
    """Of large segments."""
    if not settings.render_process:
        yield Here(asyncio.Lock())
        return
    renderer = RenderProcess()
    try:
        yield renderer
    finally:
        await renderer.close()


@asynccontextmanager
async def open_segment_pools(bells: Bells) -> AsyncIterator[SegmentPools]:
    wake = bells.ring("segments")
    pools = SegmentPools(
        large=Pool(_SEGMENTS, _SEGMENTS, wake),
        small=Pool(_SMALL_JOBS, _SMALL_JOBS, wake, wake_from=_SMALL_JOBS // 4),
    )
    try:
        yield pools
    finally:
        await pools.close()


@asynccontextmanager
async def open_offsets(settings: KafkaSettings) -> AsyncIterator[KafkaOffsets]:
    groups = {sink: group_id(settings.topic_prefix, f"floopy-{sink.value}", LINE_COMPLETED) for sink in Sink}
    offsets = KafkaOffsets(settings, groups)
    try:
        yield offsets
    finally:
        await offsets.close()


def looks_loop(base: Base, pools: Pools) -> Loop:
    settings = base.settings
    polls = PollStore(base.mongo, base.owner, settings.lease.ttl)
    lines = PlannedLines(base.mongo, base.blobs)
    settler = Settler(
        shards=polls,
        batches=base.batches,
        lines=lines,
        archives=base.archives,
        formats=RESULT_FORMATS.__getitem__,
        retries=RetryPolicy(settings.retry.max, settings.retry.min_window_left),
        refuser=Refuser(
            shards=polls,
            batches=base.batches,
            lines=lines,
            backoff=Backoff(settings.waiting.min, settings.waiting.max),
            fail_when_full=settings.waiting.queue_full == "fail",
        ),
        patience=Patience(
            settings.settle.downloads, settings.settle.file_looks, settings.poll.min, settings.poll.max
        ),
        changed=base.changed,
        reports=base.reports,
        now=base.clock.now,
        hit=base.hit,
    )
    collector = Collector(settler, pools.downloads, pools.small_downloads, base.reports)
    poller = Poller(
        shards=polls,
        providers=base.providers,
        collector=collector,
        listings=lister(base, pools, collector, polls),
        pool=pools.looks,
        pace=Pace(settings.poll.min, settings.poll.max),
        claim_for=settings.lease.ttl,
        changed=base.seen,
        reports=base.reports,
        now=base.clock.now,
        hit=base.hit,
    )
    return Loop("looks", poller.step, settings.poll.scan, spacing=min(_SPACING, settings.poll.scan))


def lister(base: Base, pools: Pools, collector: Collector, polls: PollStore) -> Lister:
    settings = base.settings
    listings = ListingStore(base.mongo, base.owner, settings.lease.ttl)
    return Lister(
        schedule=Schedule(
            listings=listings,
            jobs=pools.listings,
            threshold=settings.poll.listing_from,
            longest=settings.poll.max,
            monotonic=base.clock.monotonic,
        ),
        listed=listings,
        shards=polls,
        providers=base.providers,
        collector=collector,
        pace=Pace(settings.poll.min, settings.poll.max),
        changed=base.seen,
        reports=base.reports,
    )


def turns_loop(base: Base) -> tuple[Loop, Callable[[], None]]:
    """The loop, and a call that has it look for batches that other processes have made due."""
    settings = base.settings
    segments = SegmentProgressStore(base.mongo)
    wind_up = WindUp(
        agenda=base.agenda,
        turns=base.turns,
        shards=EndingStore(base.mongo),
        segments=segments,
        ready=base.ready,
        summaries=base.summaries,
        finaliser=Finaliser(
            batches=base.batches,
            agenda=base.agenda,
            segments=segments,
            files=FileStore(base.mongo),
            reports=base.reports,
            relay=base.bells.ring("outbox"),
            now=base.clock.now,
            hit=base.hit,
        ),
        graces=Graces(settings.batch.cancel_grace, settings.batch.expiry_grace),
        rhythm=Rhythm(settings.scan.interval * _SCANS_PER_TURN, settings.scan.interval),
        wakers=Wakers(base.bells.ring("looks"), base.bells.ring("segments")),
        now=base.clock.now,
        monotonic=base.clock.monotonic,
    )
    loop = Loop("turns", wind_up.step, settings.scan.interval)

    def search() -> None:
        wind_up.search()
        loop.wake()

    return loop, search


def segments_loop(
    base: Base, renderer: SegmentRenderer, pools: SegmentPools
) -> tuple[Loop, Callable[[], None]]:
    """The loop, and a call that has it look for segments that are to be emitted again."""
    worker = SegmentWorker(
        segments=SegmentStore(base.mongo, base.owner, base.settings.lease.ttl),
        batches=base.batches,
        materials=Materials(
            inputs=SegmentInputs(base.blobs), archives=base.archives, formats=RESULT_FORMATS.__getitem__
        ),
        parts=base.blobs,
        emitter=Emitter(producer=base.producer, partitions=base.settings.kafka.partitions, hit=base.hit),
        gate=Gate(*_EMIT_WAIT, base.clock.monotonic),
        renderer=renderer,
        ready=base.ready,
        pools=pools,
        changed=base.changed,
        audit=base.audit,
        reports=SegmentMetrics(),
        now=base.clock.now,
        monotonic=base.clock.monotonic,
        hit=base.hit,
        max_event_bytes=base.settings.kafka.max_message_bytes,
        pause=_STUCK_FOR,
        scan=base.settings.scan.interval,
    )
    loop = Loop("segments", worker.step, base.settings.scan.interval)

    def search() -> None:
        worker.search()
        loop.wake()

    return loop, search


def audit_loop(base: Base, offsets: KafkaOffsets, emit_again: Callable[[], None]) -> Loop:
    settings, reports = base.settings, AuditMetrics()
    auditor = Auditor(
        audits=base.audits,
        recount=Recount(recounts=base.audits, reports=reports),
        offsets=offsets,
        times=AuditTimes(
            settings.audit.interval,
            settings.audit.backoff_min,
            settings.audit.backoff_max,
            settings.retention.content,
        ),
        emit_again=emit_again,
        reports=reports,
        now=base.clock.now,
        hit=base.hit,
    )
    return Loop("audit", auditor.step, settings.audit.interval / 4)


def outbox_loop(base: Base) -> Loop:
    relay = OutboxRelay(base.batches.collection, base.producer, NAME)
    return Loop("outbox", relay.step, base.settings.scan.interval, spacing=_SPACING)


def cleanup_loop(base: Base) -> Loop:
    retention = base.settings.retention.content
    pause = min(_LONGEST_PAUSE, max(base.settings.scan.interval, retention / 10))
    cleanup = Cleanup(
        ended=EndedStore(base.mongo, base.blobs),
        shards=EndingStore(base.mongo),
        providers=base.providers,
        times=CleanupTimes(retention, _INPUTS_KEPT, pause),
        now=base.clock.now,
    )
    return Loop("cleanup", cleanup.step, base.settings.scan.interval)


def sweep_loop(base: Base) -> Loop:
    age = base.settings.sweep.age
    sweeper = Sweeper(
        sweeps=BlobSweeper(base.mongo), times=SweepTimes(age, min(age, _READERS)), reports=base.reports
    )
    return Loop("sweep", sweeper.step, max(base.settings.scan.interval, age / 24))
