"""Writes and emits segments that are ready: parts, manifest, events, in this order, as often as it takes."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from floopy_common.domain.errors import BlobCorrupt, BlobMissing, Invalid, Transient
from floopy_common.domain.segment import SegmentState
from floopy_reconciler.core.emit import Emitter, Gate
from floopy_reconciler.core.line_events import Facts, facts_of
from floopy_reconciler.core.materials import Materials
from floopy_reconciler.core.parts import NewPart, StoredPart
from floopy_reconciler.core.pool import Pool
from floopy_reconciler.core.quarantine import pause_for
from floopy_reconciler.core.ready import ReadySegments, is_small
from floopy_reconciler.core.render import PartIds, manifest_of
from floopy_reconciler.core.rendering import Backlog, Here, Rendering, Room, SegmentRenderer
from floopy_reconciler.core.sources import Uncovered, sources_of
from floopy_reconciler.ports import (
    Batches,
    Changed,
    Document,
    Hit,
    Now,
    PartBlobs,
    Record,
    SegmentClaim,
    SegmentHold,
    SegmentReports,
    Segments,
)

_log = logging.getLogger(__name__)

_KEPT_BYTES = 32 * 1024 * 1024
"""Events that are kept from writing to sending; what has no room is rendered once more instead."""


class Differs(Exception):  # noqa: N818 - says what happened
    """The segment no longer renders to the bytes that were stored."""


@dataclass(frozen=True)
class SegmentPools:
    """Large segments few at a time, since each is rendered in memory; small ones many."""

    large: Pool
    small: Pool

    def of(self, segment: Document) -> Pool:
        return self.small if is_small(segment) and self.small.free > 0 else self.large

    async def close(self) -> None:
        await self.large.close()
        await self.small.close()


class SegmentWorker:
    """Carries out several segments at a time, batches in turn."""

    def __init__(
        self,
        *,
        segments: Segments,
        batches: Batches,
        materials: Materials,
        parts: PartBlobs,
        emitter: Emitter,
        gate: Gate,
        renderer: SegmentRenderer,
        ready: ReadySegments,
        pools: SegmentPools,
        changed: Changed,
        audit: Changed,
        reports: SegmentReports,
        now: Now,
        monotonic: Callable[[], float],
        hit: Hit,
        max_event_bytes: int,
        pause: float,
        scan: float,
    ) -> None:
        """`renderer` has the large segments, small ones are rendered here; `changed` gives the batch its
        turn, `audit` its audit, both soon.

        Seconds: `pause` before a segment that cannot be rendered is looked at again, `scan` between two
        searches for what nobody here has offered.
        """
        self._segments = segments
        self._batches = batches
        self._materials = materials
        self._parts = parts
        self._emitter = emitter
        self._gate = gate
        self._ready = ready
        self._pools = pools
        self._changed = changed
        self._audit = audit
        self._reports = reports
        self._now = now
        self._monotonic = monotonic
        self._hit = hit
        self._max_event_bytes = max_event_bytes
        self._pause = pause
        self._scan = scan
        self._search_at = 0.0
        self._has_found = False
        self._last_batch = ""
        self._room = Room(_KEPT_BYTES)
        self._renderer = renderer
        self._here = Here(nullcontext())

    def search(self) -> None:
        """Have the next step look for segments that somebody else has made ready."""
        self._search_at = 0.0

    async def step(self) -> bool:
        """Start what is ready and fits; True: somebody else has all that was tried, and there may be more.

        Otherwise a wake-up or the end of a job says so.
        """
        offered = self._ready.take(self._pools.small.free, small=True)
        started = await self._start_offered(offered)
        # before what was offered here, which may take all the room there is for an hour
        if self._monotonic() >= self._search_at or (self._has_found and not self._ready.has(small=False)):
            await self._start_found()
        large = self._ready.take(self._pools.large.free, small=False)
        started += await self._start_offered(large)
        return bool(offered or large) and not started

    async def _start_offered(self, offered: Sequence[tuple[str, str]]) -> int:
        return sum(await asyncio.gather(*(self._start(*names) for names in offered)))

    async def _start(self, batch_id: str, segment_id: str) -> bool:
        claim = await self._segments.claim_one(segment_id, self._wanted())
        if claim is None:
            return False
        self._pools.of(claim.segment).start(batch_id, self.carry_out(claim))
        return True

    async def _start_found(self) -> None:
        if self._pools.large.free <= 0:
            return
        self._search_at = self._monotonic() + self._scan
        self._has_found = True
        while self._pools.large.free > 0:
            claim = await self._segments.claim(self._wanted(), self._last_batch)
            if claim is None:
                self._last_batch = ""
                self._has_found = False
                break
            self._last_batch = claim.segment["batch_id"]
            self._pools.of(claim.segment).start(self._last_batch, self.carry_out(claim))

    def _wanted(self) -> list[SegmentState]:
        """Writing goes on while the broker is away: a batch ends without its events."""
        return [SegmentState.OPEN, SegmentState.WRITTEN] if self._gate.is_open else [SegmentState.OPEN]

    async def carry_out(self, claim: SegmentClaim) -> None:
        """Take a segment as far as it will go; what is left is claimed again."""
        async with claim.hold() as hold:
            pause = pause_for(hold.segment, self._pause)
            if pause is not None:
                await self._quarantine(hold, pause)
                return
            self._hit("segment.after_claim")
            try:
                await self._work(hold)
            except asyncio.CancelledError:
                await hold.give_back(0, failed=False)
                raise
            except (Invalid, Uncovered, BlobMissing, BlobCorrupt, LookupError) as error:
                self._reports.stuck()
                _log.exception(
                    "segment cannot be rendered",
                    extra={"event": "segment_stuck", "segment_id": hold.segment["_id"], "cause": str(error)},
                )
                await hold.give_back(self._pause, failed=True)
            except Differs:
                self._reports.differs()
                _log.error(  # the stored parts are what users have: events that do not fit them never leave
                    "segment no longer renders to its stored bytes",
                    extra={"event": "segment_differs", "segment_id": hold.segment["_id"]},
                )
                await hold.give_back(self._pause, failed=True)

    async def _quarantine(self, hold: SegmentHold, pause: float) -> None:
        self._reports.stuck()
        self._reports.quarantined()
        _log.error(
            "segment kills its workers",
            extra={
                "event": "segment_quarantined",
                "segment_id": hold.segment["_id"],
                "deaths": hold.segment["lease"]["deaths"],
                "pause": round(pause, 1),
            },
        )
        await hold.give_back(pause, failed=True)

    async def _work(self, hold: SegmentHold) -> None:
        segment = hold.segment
        batch = await self._batches.get(segment["batch_id"])
        if batch is None or (batch.get("plan") or {}).get("plan_id") != segment["plan_id"]:
            raise LookupError(f"segment {segment['_id']} belongs to no planned batch")
        manifest = segment["manifest"]
        if manifest is None:
            sources = sources_of(
                await self._segments.shards_of(segment), segment["first_line"], segment["last_line"]
            )
            manifest = manifest_of(batch, sources, self._now())
        facts = facts_of(batch, segment, manifest, self._max_event_bytes)
        with Backlog(self._room) as backlog:
            await self._render(hold, batch, manifest, facts, backlog)
            if backlog.records is not None:
                await self._emit(hold, facts, [backlog.records])

    async def _render(
        self, hold: SegmentHold, batch: Document, manifest: Document, facts: Facts, backlog: Backlog
    ) -> None:
        """Afterwards the stored bytes are let go, so what `backlog` has no room for is sent from here."""
        segment = hold.segment
        async with self._materials.opened(batch, segment, manifest["sources"]) as stored:
            renders = self._here if is_small(segment) else self._renderer
            rendering = Rendering(facts, manifest["sources"], stored, renders)
            if segment["state"] == SegmentState.OPEN.value:
                parts = await self._write(hold, manifest, rendering, backlog)
            else:
                parts = await self._compare(manifest, rendering, backlog)
            if backlog.records is None:
                await self._emit(hold, facts, rendering.bundles(parts))

    async def _write(
        self, hold: SegmentHold, manifest: Document, rendering: Rendering, backlog: Backlog
    ) -> PartIds:
        started = self._monotonic()
        batch_id = rendering.facts.batch_id
        error = NewPart(self._parts, batch_id, lambda: self._hit("segment.after_error_part"))
        output = NewPart(self._parts, batch_id, lambda: self._hit("segment.after_output_part"))
        async with error, output:
            tally = await rendering.run(output, error, backlog)
        counts = {"completed": tally.completed, "failed": tally.failed}
        manifest = {
            **manifest,
            "output": output.stored and {**output.stored, "lines": tally.completed},
            "error": error.stored and {**error.stored, "lines": tally.failed},
        }
        await hold.written(manifest, counts, tally.usage)
        self._hit("segment.after_manifest")
        self._reports.written(sum(counts.values()), self._monotonic() - started)
        self._note(hold.segment, tally.notes)
        await self._changed(batch_id)
        return PartIds(output.id, error.id)

    def _note(self, segment: Document, notes: Mapping[str, int]) -> None:
        for note, lines in notes.items():
            self._reports.noted(note, lines)
        if notes:
            _log.warning(
                "answers were told with something unknown or missing",
                extra={"event": "answers_noted", "segment_id": segment["_id"], "notes": dict(notes)},
            )

    async def _compare(self, manifest: Document, rendering: Rendering, backlog: Backlog) -> PartIds:
        """Raises Differs when what was stored would not be written like that today."""
        output, error = StoredPart(manifest["output"]), StoredPart(manifest["error"])
        await rendering.run(output, error, backlog)
        if not (output.is_the_same and error.is_the_same):
            raise Differs
        return PartIds(output.id, error.id)

    async def _emit(self, hold: SegmentHold, facts: Facts, bundles: Iterable[list[Record]]) -> None:
        if not self._gate.enter():
            await hold.give_back(self._gate.wait, failed=False)
            await self._audit(facts.batch_id)  # what is written counts, though its events are still here
            return
        started = self._monotonic()
        again = hold.segment["emitted"] is not None
        try:
            emission = await self._emitter.emit(facts.batch_id, facts.segment.no, bundles)
        except Transient as error:
            self._gate.failed()
            _log.warning(
                "segment not emitted",
                extra={"event": "segment_not_emitted", "batch_id": facts.batch_id, "cause": str(error)},
            )
            await hold.give_back(self._gate.wait, failed=True)
            await self._audit(facts.batch_id)
            return
        except BaseException:
            self._gate.left()
            raise
        self._gate.succeeded()
        await hold.emitted(emission.partition, emission.first_offset, emission.last_offset)
        self._hit("segment.after_emitted")
        self._reports.emitted(facts.segment.lines, self._monotonic() - started, again=again)
        await self._audit(facts.batch_id)
