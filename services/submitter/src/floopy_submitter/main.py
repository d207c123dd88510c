"""Puts the submitter together and runs it; the only place that constructs."""

import asyncio
from collections.abc import Awaitable, Callable

from floopy_common.chassis import failpoints
from floopy_common.chassis.clock import SystemClock
from floopy_common.chassis.consumer import open_consumer
from floopy_common.chassis.loop import Bells, Loop
from floopy_common.chassis.mongo import Document, Mongo, check_schema, open_mongo
from floopy_common.chassis.outbox import EventSender, OutboxRelay, entry
from floopy_common.chassis.producer import open_producer
from floopy_common.chassis.runtime import service_runtime
from floopy_common.chassis.secrets import Keyring
from floopy_common.domain.batch import BatchStatus
from floopy_common.domain.shard import ShardState
from floopy_common.events.lifecycle import lifecycle_event
from floopy_common.providers.anthropic.policy import policy_of
from floopy_common.providers.clients import open_clients
from floopy_common.providers.port import ProviderDirectory
from floopy_common.providers.pricing import PriceTable
from floopy_common.settings import Settings
from floopy_common.stores.batches import BatchStore
from floopy_common.stores.blobs import BlobStore, FileReader
from floopy_common.stores.create_turns import CreateTurnStore
from floopy_common.stores.files import FileStore
from floopy_common.stores.finishing import PlannedLines, TurnStore
from floopy_common.stores.orphans import OrphanStore, SweepStore
from floopy_common.stores.planning import PlanningStore
from floopy_common.stores.provider_models import ProviderModelStore
from floopy_common.stores.submitting import SubmitStore
from floopy_common.stores.summaries import SummaryStore
from floopy_submitter.core.cutting import SegmentLimits, ShardLimits
from floopy_submitter.core.due import SUBMITTING, DueWork
from floopy_submitter.core.input import ANTHROPIC, ShardInput
from floopy_submitter.core.kept import KeptInputs
from floopy_submitter.core.known_models import KnownModels, ModelTimes
from floopy_submitter.core.orphans import OrphanKeeper, Sweeper
from floopy_submitter.core.planner import PLANNING_STEPS, Planner
from floopy_submitter.core.planning import PLANNING, Planning
from floopy_submitter.core.recovery import Recovery, SettleRule
from floopy_submitter.core.refusing import Refuser
from floopy_submitter.core.search import Search, SearchTimes
from floopy_submitter.core.slots import Slots
from floopy_submitter.core.solitude import Deadly, Solitude, Survivors
from floopy_submitter.core.splitting import Splitter
from floopy_submitter.core.stored_files import StoredFiles
from floopy_submitter.core.submit import Submitter, SubmitTimes
from floopy_submitter.core.translation import TranslationPlanner
from floopy_submitter.core.translator import Translators
from floopy_submitter.core.waiting import Backoff, Breaker
from floopy_submitter.core.wanted import is_alone
from floopy_submitter.errors import UnsafeSettings
from floopy_submitter.metrics import WAITING, SubmitReport

BY = "floopy-submitter"

FAILPOINTS = {
    **PLANNING_STEPS,
    "submit.after_claim": "a shard was claimed and an attempt begun, its input is not uploaded",
    "submit.after_upload": "the provider has the input, its file id is not stored",
    "submit.after_fence": "the attempt is `creating`, the input's file id is stored, the call is not made",
    "submit.after_create": "the provider has created its batch, the id is not stored",
    "submit.after_record": "the provider batch is recorded, its event waits in the outbox",
    "submit.after_unknown": "a create was ambiguous and is noted as unknown",
    "submit.after_wait": "the provider had no room; the shard waits",
    "submit.after_split_decided": "the input will be split (too large, or lines refused), no half is stored",
    "submit.after_split_stored": "the second half is stored, the first still has its lines too",
    "submit.after_split": "both halves are planned",
    "submit.after_refuse": "the provider refused the input; the shard is refused",
    "recovery.after_claim": "an unclear shard was claimed, the provider is not asked yet",
    "recovery.after_adopt": "a provider batch was found and recorded",
    "recovery.after_abandon": "an attempt was given up, the next is not begun",
    "orphan.after_note": "a provider batch nobody wants is noted, not cancelled yet",
    "orphan.after_cancel": "an orphan was cancelled, that is not noted yet",
}
failpoints.declare(FAILPOINTS)

_GRACE = 8.0
"""Seconds that submits under way get when the process is told to stop: less than what `floopy up` waits."""
_GAUGE_INTERVAL = 10.0
_SPACING = 0.1
"""Seconds between two steps of a loop that many things wake: what comes meanwhile is done side by side."""
_SELDOM = 5
"""Times the scan's interval, between two looks for what nothing but a crash or a rare accident leaves."""
_AUDITS_SKIPPED = 10
"""Of a batch of which nobody has said that anything is written: who writes wakes its audit."""
_SHORTEST_REST, _LONGEST_REST = 30.0, 3_600.0
"""Seconds a shard is left alone after it has cost several submitters their lives."""
_SMALL_PLANS = 16
"""Batches with small inputs that are planned side by side."""
_LARGE_PLANS = 2
"""Batches with large inputs that are planned beside each other, and beside small ones."""


async def run(settings: Settings) -> None:
    """Work until told to stop; UnsafeSettings when a create could be repeated before its deadline."""
    if settings.submit.settle_window <= settings.submit.create_timeout:
        raise UnsafeSettings("FLOOPY_SUBMIT__SETTLE_WINDOW must be longer than FLOOPY_SUBMIT__CREATE_TIMEOUT")
    async with (
        service_runtime(BY, settings) as runtime,
        open_mongo(settings.mongo, BY) as mongo,
        open_producer(settings.kafka) as producer,
        open_clients(mongo, settings, Keyring(settings.secret_key)) as providers,
        open_consumer(settings.kafka, BY) as consumer,
    ):
        await check_schema(mongo)
        wiring = Wiring(settings, mongo, providers, runtime.owner)
        wiring.planning()
        wiring.submitting()
        wiring.surviving()
        wiring.recovering()
        wiring.sweeping()
        wiring.relaying(producer)
        consumer.wake("batch.created", wiring.bells.ring("plan"))
        runtime.ready("mongo", mongo.ping)
        runtime.ready("consumer", consumer.ready)
        try:
            await runtime.run(
                *(loop.run(runtime.stop) for loop in wiring.bells.loops.values()), consumer.run(runtime.stop)
            )
        finally:
            await asyncio.gather(*(slots.close(_GRACE) for slots in wiring.slots))


class Wiring:
    """What one process is made of; each method adds loops."""

    def __init__(self, settings: Settings, mongo: Mongo, providers: ProviderDirectory, owner: str) -> None:
        self.bells = Bells()
        self.slots: list[Slots] = []
        self._settings = settings
        self._scan = settings.scan.interval
        self.solitude = Solitude(self.bells.ring("alone"))
        self._deadly: list[Deadly] = []
        self._mongo = mongo
        self._owner = owner
        self._providers = providers
        self._clock = SystemClock()
        self._hit = failpoints.Failpoints(settings.fail_at).hit
        self._report = SubmitReport()
        self._batches = BatchStore(mongo)
        self._blobs = BlobStore(mongo)
        self._shards = SubmitStore(mongo, owner, settings.lease.ttl)
        self._orphans = OrphanStore(mongo)
        self._summaries = SummaryStore(mongo)
        self._turns = TurnStore(mongo)
        self._kept = KeptInputs()
        self._stored = StoredFiles(
            FileStore(mongo), self._blobs, FileReader(self._blobs), settings.providers.anthropic.file_bytes
        )
        self._translators = Translators(self._blobs, self._stored, Keyring(settings.secret_key).end_user_salt)
        self._search = Search(
            shards=self._shards,
            orphans=self._orphans,
            times=SearchTimes(settings.submit.create_timeout, settings.lease.ttl, settings.submit.clock_skew),
        )
        self._look_every = max(self._scan, settings.submit.settle_window / settings.submit.settle_looks)
        self._keeper = OrphanKeeper(
            orphans=self._orphans,
            providers=providers,
            backoff=Backoff(self._scan, max(self._scan, settings.poll.max)),
            claim_for=settings.lease.ttl,
            report=self._report,
            hit=self._hit,
            wake=self.bells.ring("orphans"),
        )

    def planning(self) -> None:
        settings = self._settings
        store = PlanningStore(self._mongo, self._owner, settings.lease.ttl)
        planner = Planner(
            store=store,
            blobs=self._blobs,
            files=FileReader(self._blobs),
            prices=PriceTable(),
            segment=SegmentLimits(settings.segment.max_lines, settings.segment.max_bytes),
            shard=ShardLimits(settings.shard.max_lines, settings.shard.max_bytes),
            translations={ANTHROPIC: self._translation()},
            mixed_models=settings.batch.allow_mixed_models,
            kept=self._kept,
            planned=self.bells.ring("submit"),
            refused=self.bells.ring("outbox batches"),
            now=self._clock.now,
            hit=self._hit,
            audit_after=settings.audit.interval * _AUDITS_SKIPPED,
        )
        small, large = self._new_slots("plan", _SMALL_PLANS), self._new_slots("plan", _LARGE_PLANS)
        planning = Planning(
            store=store,
            planner=planner,
            small=small,
            large=large,
            solitude=self.solitude,
            now=self._clock.now,
        )
        self.solitude.join(PLANNING, [small, large], self.bells.ring("plan"))
        self._deadly.append(planning)
        self._add("plan", planning.step, spacing=_SPACING)
        self._add("tidy", store.tidy_next, _SELDOM * self._scan)

    def _translation(self) -> TranslationPlanner:
        shard, claude = self._settings.shard, self._settings.providers.anthropic
        limits = ShardLimits(shard.max_lines, shard.max_bytes)
        return TranslationPlanner(
            blobs=self._blobs,
            reader=FileReader(self._blobs),
            files=self._stored,
            translators=self._translators,
            models=KnownModels(
                overrides=claude.models,
                providers=self._providers,
                store=ProviderModelStore(self._mongo),
                times=ModelTimes(claude.models_ttl, claude.models_wait),
                now=self._clock.now,
                report=self._report,
            ),
            policy=policy_of(claude),
            limits=limits.within(ShardLimits(claude.shard_lines, claude.shard_bytes)),
        )

    def submitting(self) -> None:
        settings = self._settings
        index = PlannedLines(self._mongo, self._blobs)
        inputs = ShardInput(index, FileReader(self._blobs), self._translators, self._kept)
        splitter = Splitter(shards=self._shards, inputs=inputs, hit=self._hit)
        breaker = Breaker()
        submitter = Submitter(
            shards=self._shards,
            batches=self._batches,
            providers=self._providers,
            inputs=inputs,
            splitter=splitter,
            refuser=Refuser(inputs=inputs, splitter=splitter, blobs=self._blobs),
            turns=CreateTurnStore(self._mongo),
            keeper=self._keeper,
            backoff=Backoff(settings.waiting.min, settings.waiting.max),
            breaker=breaker,
            fail_when_full=settings.waiting.queue_full == "fail",
            times=SubmitTimes(
                create_timeout=settings.submit.create_timeout,
                margin=settings.lease.ttl,
                defer=self._scan,
                first_look=settings.poll.min,
                clock_skew=settings.submit.clock_skew,
            ),
            announce=self._announce,
            changed=self._changed,
            submitted=self._submitted,
            unclear=self.bells.ring("recovery"),
            report=self._report,
            hit=self._hit,
        )
        slots = self._new_slots("submit")
        due = DueWork(
            shards=self._shards,
            batches=self._batches,
            providers=self._providers,
            slots=slots,
            breaker=breaker,
            solitude=self.solitude,
            submit=submitter.submit,
            defer=self._scan,
            rest=Backoff(_SHORTEST_REST, _LONGEST_REST),
            report=self._report,
            hit=self._hit,
        )
        self.solitude.join(SUBMITTING, [slots], self.bells.ring("submit"))
        self._deadly.append(due)
        self._add("submit", due.step, spacing=_SPACING)
        self._add("gauge", WaitingGauge(self._shards).step, _GAUGE_INTERVAL)

    def surviving(self) -> None:
        """After what it is to look after."""
        survivors = Survivors(solitude=self.solitude, kinds=self._deadly)
        self.slots.append(survivors.slots)
        self._add("alone", survivors.step)

    def recovering(self) -> None:
        submit = self._settings.submit
        recovery = Recovery(
            shards=self._shards,
            batches=self._batches,
            search=self._search,
            providers=self._providers,
            keeper=self._keeper,
            slots=self._new_slots("recovery"),
            pace=Backoff(self._scan, self._look_every),
            rule=SettleRule(
                window=submit.settle_window,
                looks=submit.settle_looks,
                max_attempts=submit.max_attempts,
            ),
            first_look=self._settings.poll.min,
            announce=self._announce,
            changed=self._changed,
            free=self.bells.ring("submit"),
            report=self._report,
            hit=self._hit,
        )
        self._add("recovery", recovery.step)

    def sweeping(self) -> None:
        submit = self._settings.submit
        sweeper = Sweeper(
            shards=SweepStore(self._mongo),
            search=self._search,
            providers=self._providers,
            keeper=self._keeper,
            slots=self._new_slots("sweep"),
            backoff=Backoff(self._look_every, max(self._look_every, submit.settle_window)),
            sweep_for=submit.sweep_for,
        )
        self._add("sweep", sweeper.step, _SELDOM * self._scan)
        self._add("orphans", self._keeper.step)

    def relaying(self, sender: EventSender) -> None:
        """The loops that send what batches and shards have pending."""
        for name in ("batches", "shards"):
            relay = OutboxRelay(self._mongo.collection(name), sender, BY)
            self._add(f"outbox {name}", relay.step, spacing=_SPACING)

    def _announce(self, batch: Document, shard_id: str) -> Document:
        topic = "batch.submitted"
        event_id, value = lifecycle_event(topic, batch, at=self._clock.now(), shard_id=shard_id)
        return entry(event_id=event_id, topic=topic, key=batch["_id"], by=BY, value=value)

    async def _changed(self, batch_id: str) -> None:
        """Show what moved, send what is pending; the reconciler hears of it where that moves the batch."""
        self.bells.ring("outbox shards")()
        shown = await self._summaries.refresh(batch_id)
        if shown is None or is_for_a_turn(shown):
            await self._turns.nudge(batch_id)

    async def _submitted(self, shard: Document, batch: Document) -> None:
        """Likewise for a shard that has just been submitted."""
        self._kept.submitted(shard["plan_id"])
        if is_alone(shard, batch) and await self._shards.show_submitted(batch["_id"]):
            self.bells.ring("outbox shards")()
        else:
            await self._changed(batch["_id"])

    def _add(
        self,
        name: str,
        step: Callable[[], Awaitable[bool]],
        interval: float | None = None,
        *,
        spacing: float = 0.0,
    ) -> None:
        self.bells.hang(Loop(name, step, interval or self._scan, spacing=spacing))

    def _new_slots(self, name: str, size: int | None = None) -> Slots:
        """Whose jobs wake the loop `name` when they end."""
        slots = Slots(size or self._settings.submit.concurrency, self.bells.ring(name))
        self.slots.append(slots)
        return slots


def is_for_a_turn(shown: Document) -> bool:
    """Whether a batch's turn would find anything: it is ending, or something of it has ended."""
    ended = any(ShardState(state).is_terminal for state in shown["shards"])
    return ended or shown["ending"] is not None or shown["status"] != BatchStatus.IN_PROGRESS.value


class WaitingGauge:
    """Keeps the gauge of waiting shards; a reason that is gone shows zero."""

    def __init__(self, shards: SubmitStore) -> None:
        self._shards = shards
        self._shown: set[str] = set()

    async def step(self) -> bool:
        counts = await self._shards.count_waiting()
        self._shown |= counts.keys()
        for reason in self._shown:
            WAITING.labels(reason).set(counts.get(reason, 0))
        return False
