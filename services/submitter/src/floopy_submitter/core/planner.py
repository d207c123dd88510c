"""Planning: a batch that is `validating` becomes segments and shards, or fails saying what is wrong with it.

    Planner(
        store=PlanningStore(mongo, runtime.owner, settings.lease.ttl),
        blobs=BlobStore(mongo),
        files=FileReader(blobs),
        prices=pricing.PRICES,
        segment=SegmentLimits(settings.segment.max_lines, settings.segment.max_bytes),
        shard=ShardLimits(settings.shard.max_lines, settings.shard.max_bytes),
        translations={"anthropic": TranslationPlanner(...)},   # by provider, where lines are translated
        kept=KeptInputs(),     # where small inputs are handed on to whoever submits them
        planned=wake,          # called after a batch got its plan: there are shards to submit
        refused=wake,          # called after a batch failed: an event waits in its outbox
        now=clock.now,
        hit=failpoints.hit,    # PLANNING_STEPS are the names to declare
    )

Any number of plans may be under way at once (`planning.py` starts them). Everything is decided by the batch's
lease and one conditional write at the end, so a crash at any moment leaves the batch to the next claim, which
starts over with a plan id of its own.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from floopy_common.domain.errors import BlobCorrupt, BlobMissing, LeaseLost
from floopy_common.providers.openai.request import TRANSLATOR_VERSION
from floopy_submitter.core import faults
from floopy_submitter.core.cutting import OPENAI_LIMITS, Segment, SegmentLimits, ShardLimits
from floopy_submitter.core.faults import Fault
from floopy_submitter.core.kept import Copy, KeptInputs
from floopy_submitter.core.plan import (
    Upstream,
    archive_document,
    plan_document,
    planned_fields,
    refused_fields,
    segment_document,
    shard_document,
    unsent_document,
)
from floopy_submitter.core.scan import InputScan
from floopy_submitter.core.translation import Planned, Translation, TranslationPlanner
from floopy_submitter.ports import (
    Document,
    Hit,
    IndexBlobs,
    IndexWriter,
    InputReader,
    Now,
    PlanClaim,
    PlanHold,
    PlanStore,
    PriceList,
)

_log = logging.getLogger(__name__)

PLANNING_STEPS = {
    "plan.after_claim": "a batch was claimed for planning, nothing is read yet",
    "plan.after_reserve": "the input is good and its lines are reserved, the index is not published",
    "plan.after_index": "the line index is published, no segment is stored",
    "plan.after_segments": "every segment is stored, no shard",
    "plan.after_shards": "every shard is stored, the batch is still `validating`",
    "plan.after_plan": "the batch is in progress with its plan, nobody is told",
    "plan.after_refuse": "the batch has failed, its event waits in the outbox",
}
MAX_TRIES = 5
"""Claims after which a batch fails: its planning has killed, or outlived, that many workers."""

_PURPOSE = "batch"


class _Refused(Exception):  # noqa: N818 - a way out of the input, not an error of the program
    def __init__(self, refusal: Sequence[Fault]) -> None:
        self.refusal = refusal


@dataclass(frozen=True)
class _Cut:
    """What a plan is made of; `shards` as they are stored."""

    segments: Sequence[Segment]
    shards: list[Document]
    upstream: Upstream


class Planner:
    """Plans batches; see the module for how to make one."""

    def __init__(
        self,
        *,
        store: PlanStore,
        blobs: IndexBlobs,
        files: InputReader,
        prices: PriceList,
        segment: SegmentLimits,
        shard: ShardLimits,
        translations: Mapping[str, TranslationPlanner],
        mixed_models: bool,
        kept: KeptInputs,
        planned: Callable[[], None],
        refused: Callable[[], None],
        now: Now,
        hit: Hit,
        audit_after: float = 0.0,
    ) -> None:
        """`mixed_models`: a file may name several models, each of which gets shards of its own.

        `audit_after`: seconds until a batch is audited though nobody asked for it.
        """
        self._store = store
        self._blobs = blobs
        self._files = files
        self._prices = prices
        self._segment = segment
        self._shard = shard.within(OPENAI_LIMITS)
        self._translations = translations
        self._mixed_models = mixed_models
        self._kept = kept
        self._planned = planned
        self._refused = refused
        self._now = now
        self._hit = hit
        self._audit_after = audit_after

    async def plan(self, claim: PlanClaim) -> None:
        """Plan or refuse a claimed batch, unless it is another's meanwhile."""
        try:
            async with claim.hold() as hold:
                won = await self._decide(hold, claim.tries)
        except LeaseLost:
            won = False
        if not won:
            _log.info("a plan was dropped", extra={"event": "plan_dropped", "batch_id": claim.batch["_id"]})
            await self._store.abandon(claim.batch["_id"], claim.plan_id)
        elif not claim.is_first:
            await self._store.tidy(claim.batch["_id"])

    async def _decide(self, hold: PlanHold, tries: int) -> bool:
        """False when the batch is not ours to decide any more."""
        self._hit("plan.after_claim")
        try:
            return await self._plan(hold, tries)
        except _Refused as refused:
            return await self._refuse(hold, refused.refusal)

    async def _plan(self, hold: PlanHold, tries: int) -> bool:
        _check_batch(hold.batch, tries)
        endpoint = hold.batch["endpoint"]
        scan = InputScan(endpoint, self._segment, self._shard, mixed_models=self._mixed_models)
        async with self._blobs.writer(kind="index", pins=[hold.batch["_id"]]) as writer:
            copy = await self._read(hold.batch, scan, writer)
            if not await hold.reserve(scan.lines):
                cap = hold.batch["context"]["monthly_line_cap"]
                raise _Refused([faults.over_cap(scan.lines, cap)])
            self._hit("plan.after_reserve")
        self._hit("plan.after_index")
        cut = await self._cut(hold, scan, writer.blob.id)
        if not await self._store_plan(hold, scan, writer.blob.id, cut):
            return False
        if (kept := copy.done(cut.segments)) is not None:
            self._kept.keep(hold.plan_id, kept, len(cut.shards))
        self._planned()
        return True

    async def _cut(self, hold: PlanHold, scan: InputScan, index_blob: str) -> "_Cut":
        """Segments and shards; where lines are translated, shards of what comes of that."""
        segments, shards = scan.cut()
        translation = self._translations.get(hold.batch["provider"])
        now = self._now()
        if translation is None:
            documents = [
                shard_document(hold.batch, hold.plan_id, no, shard, scan.models[shard.group], now)
                for no, shard in enumerate(shards)
            ]
            return _Cut(segments, documents, Upstream(TRANSLATOR_VERSION))
        try:
            done = await translation.plan(Planned(hold.batch, index_blob, segments, scan.models))
        except BlobMissing:
            raise _Refused([faults.unknown_file(hold.batch["input_file_id"], hold.batch["org_id"])]) from None
        documents = await self._documents(hold, scan, done)
        return _Cut(segments, documents, Upstream(translation.version, done.models, done.blob))

    async def _documents(self, hold: PlanHold, scan: InputScan, done: Translation) -> list[Document]:
        """The shards of a translated batch: first those that are sent."""
        batch, plan_id, now = hold.batch, hold.plan_id, self._now()
        documents = [
            shard_document(batch, plan_id, no, shard, scan.models[shard.group], now)
            for no, shard in enumerate(done.shards)
        ]
        for no, unsent in enumerate(done.unsent, start=len(documents)):
            async with self._blobs.writer(kind="results", pins=[batch["_id"]]) as writer:
                await writer.write(unsent.packed())
            archive = archive_document(writer.blob.id, unsent, done.answers)
            model = scan.models[unsent.group]
            documents.append(unsent_document(batch, plan_id, no, unsent, model, archive, now))
        return documents

    async def _read(self, batch: Document, scan: InputScan, writer: IndexWriter) -> Copy:
        """One pass over the input; _Refused when it cannot run."""
        copy = Copy()
        try:
            async with aclosing(self._files.read_ranges(batch["input"]["ranges"])) as pieces:
                async for piece in pieces:
                    rows = scan.feed(piece)
                    copy.add(piece, rows)
                    await writer.write(rows)
                    if scan.is_hopeless:
                        break
                    # pieces that were read ahead come without a wait: let the lease have its heartbeat
                    await asyncio.sleep(0)
        except BlobMissing:
            raise _Refused([faults.unknown_file(batch["input_file_id"], batch["org_id"])]) from None
        except BlobCorrupt:
            raise _Refused([faults.damaged_file(batch["input_file_id"])]) from None
        rows = scan.finish()
        copy.add(b"", rows)
        await writer.write(rows)
        if scan.faults:
            raise _Refused(scan.faults)
        return copy

    async def _store_plan(self, hold: PlanHold, scan: InputScan, index_blob: str, cut: "_Cut") -> bool:
        batch, plan_id, now = hold.batch, hold.plan_id, self._now()
        await hold.insert_segments([segment_document(batch, plan_id, part, now) for part in cut.segments])
        self._hit("plan.after_segments")
        await hold.insert_shards(cut.shards)
        self._hit("plan.after_shards")
        plan = plan_document(
            batch,
            plan_id=plan_id,
            models=scan.models,
            lines=scan.lines,
            segments=len(cut.segments),
            shards=len(cut.shards),
            index_blob=index_blob,
            upstream=cut.upstream,
            prices=self._prices,
            month=hold.month,
            now=now,
        )
        if not await hold.planned(planned_fields(plan, cut.shards, now, self._audit_after), now):
            return False
        self._hit("plan.after_plan")
        size = {"lines": scan.lines, "shards": len(cut.shards)}
        _log.info("planned", extra={"event": "planned", "batch_id": batch["_id"], **size})
        return True

    async def _refuse(self, hold: PlanHold, refusal: Sequence[Fault]) -> bool:
        if not await hold.refused(refused_fields(refusal), self._now()):
            return False
        self._hit("plan.after_refuse")
        _log.info(
            "refused",
            extra={"event": "plan_refused", "batch_id": hold.batch["_id"], "code": refusal[0].code},
        )
        self._refused()
        return True


def _check_batch(batch: Document, tries: int) -> None:
    """_Refused when there is nothing to read, or reading it again would only do more harm."""
    if tries > MAX_TRIES:
        raise _Refused([faults.gave_up(tries - 1)])
    if batch["input"] is None:
        raise _Refused([faults.unknown_file(batch["input_file_id"], batch["org_id"])])
    if batch["input"]["purpose"] != _PURPOSE:
        raise _Refused([faults.wrong_purpose(batch["input_file_id"], batch["input"]["purpose"])])
