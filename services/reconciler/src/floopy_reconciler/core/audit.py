"""The audit: five numbers out of receipts, and whatever no sink will confirm by itself is emitted again."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from floopy_common.domain.batch import BatchStatus
from floopy_common.domain.segment import Sink
from floopy_reconciler.core.agenda import AT_ONCE, side_by_side
from floopy_reconciler.core.cleanup import ended_at
from floopy_reconciler.core.recount import FROM_THE_START, Recount
from floopy_reconciler.ports import (
    AuditHold,
    AuditReports,
    Audits,
    Document,
    Hit,
    Now,
    Offsets,
    OffsetsReader,
)

_log = logging.getLogger(__name__)

_SEGMENTS_AT_ONCE = 500
"""Segments looked at together."""
_NUMBER_OF = {Sink.LOGGING: "logged", Sink.METERING: "metered", Sink.FEEDBACK: "scored"}


@dataclass(frozen=True)
class AuditTimes:
    """Seconds: between audits of a batch that moves, bounds of the back-off, and how long content is kept."""

    interval: float
    backoff_min: float
    backoff_max: float
    retention: float

    def backoff(self, times: int) -> float:
        """What has to pass after an emission before another one, `times` having been in vain."""
        return float(min(self.backoff_min * 2.0 ** min(times, 30), self.backoff_max))


@dataclass(frozen=True)
class _Numbers:
    total: int
    answered: int
    by_sink: dict[Sink, int]
    parked: int

    @property
    def complete(self) -> bool:
        return self.answered == self.total and all(n == self.total for n in self.by_sink.values())

    def fields(self) -> Document:
        named = {_NUMBER_OF[sink]: lines for sink, lines in self.by_sink.items()}
        return {"answered": self.answered, **named, "parked": self.parked}


class Auditor:
    """Audits batches, each under a lease of its own."""

    def __init__(
        self,
        *,
        audits: Audits,
        recount: Recount,
        offsets: OffsetsReader,
        times: AuditTimes,
        emit_again: Callable[[], None],
        reports: AuditReports,
        now: Now,
        hit: Hit,
    ) -> None:
        """`emit_again` is called when segments have become ready to be emitted once more."""
        self._audits = audits
        self._recount = recount
        self._offsets = offsets
        self._times = times
        self._emit_again = emit_again
        self._reports = reports
        self._now = now
        self._hit = hit

    async def step(self) -> bool:
        """The batches longest due, some at a time; False when none is due."""
        holds: list[AuditHold] = []
        while len(holds) < AT_ONCE and (hold := await self._audits.claim()) is not None:
            holds.append(hold)
            self._hit("audit.after_claim")
        await side_by_side(self._audit(hold) for hold in holds)
        return bool(holds)

    async def _audit(self, hold: AuditHold) -> None:
        waiting = await self._confirm(hold.batch)
        numbers = await self._numbers(hold.batch)
        if not waiting and numbers.complete and BatchStatus(hold.batch["status"]).is_terminal:
            await self._complete(hold, numbers)
        else:
            if not waiting:
                await self._look_for_lost_receipts(hold.batch, numbers)
            await self._incomplete(hold, numbers)
        self._hit("audit.after_record")

    async def _confirm(self, batch: Document) -> bool:
        """Mark what every sink has confirmed; True while any emitted segment is not."""
        batch_id, plan_id = batch["_id"], batch["plan"]["plan_id"]
        waiting, after = False, FROM_THE_START
        while True:
            emitted = await self._audits.emitted(batch_id, plan_id, after, _SEGMENTS_AT_ONCE)
            missing = await self._audits.unconfirmed(batch_id, emitted)
            confirmed = [segment["_id"] for segment in emitted if segment["no"] not in missing]
            if confirmed:
                await self._audits.confirm(confirmed)
                self._hit("audit.after_confirm")
            late = [segment for segment in emitted if segment["no"] in missing and self._is_late(segment)]
            if late:
                await self._send_again(batch_id, late)
            waiting = waiting or bool(missing)
            if len(emitted) < _SEGMENTS_AT_ONCE:
                return waiting
            after = emitted[-1]["no"]

    def _is_late(self, segment: Document) -> bool:
        patience = self._times.backoff(segment.get("resends") or 0)
        return bool(self._now() >= segment["emitted"]["at"] + timedelta(seconds=patience))

    async def _send_again(self, batch_id: str, late: list[Document]) -> None:
        """Those that a sink has passed, or that the log has lost.

        A sink stores its receipt before it commits, so receipts are read after the offsets; the log's end is
        read after the segments, so what was emitted is before it unless it is lost.
        """
        offsets = await self._offsets.read()
        if offsets is None:
            return
        missing = await self._audits.unconfirmed(batch_id, late)
        again = 0
        for segment in late:
            sinks = missing.get(segment["no"], set())
            if any(will_never_confirm(segment["emitted"], sink, offsets) for sink in sinks):
                again += await self._audits.emit_again(segment)
        if again:
            self._reports.sent_again(again)
            _log.warning(
                "segments are emitted again",
                extra={"event": "emitted_again", "batch_id": batch_id, "segments": again},
            )
            self._emit_again()

    async def _numbers(self, batch: Document) -> _Numbers:
        by_sink, parked = await self._audits.confirmed(batch["_id"])
        answered = await self._audits.answered(batch["_id"], batch["plan"]["plan_id"])
        return _Numbers(batch["plan"]["total"], answered, by_sink, parked)

    async def _look_for_lost_receipts(self, batch: Document, numbers: _Numbers) -> None:
        """Only where sinks are behind though no segment is waiting for them."""
        if min(numbers.by_sink.values()) < numbers.answered:
            await self._audits.reopen(batch["_id"], batch["plan"]["plan_id"])

    async def _incomplete(self, hold: AuditHold, numbers: _Numbers) -> None:
        before, fields = hold.batch["audit"], numbers.fields()
        moved = any(before.get(name) != value for name, value in fields.items())
        pace = self._times.interval
        if not moved and before.get("pace"):
            pace = max(pace, min(before["pace"] * 2, self._times.backoff_min))
        await hold.record({**fields, "stage": "open", "balanced": False, "pace": pace, "recount": None}, pace)

    async def _complete(self, hold: AuditHold, numbers: _Numbers) -> None:
        """Every receipt is there: believed once the rows have been counted, and again from time to time."""
        state: Document = hold.batch["audit"].get("recount") or {"after": FROM_THE_START, "rounds": 0}
        reached, void = await self._recount.run(hold, state["after"])
        self._hit("audit.after_recount")
        if void:
            unbalanced = {"stage": "open", "balanced": False, "pace": None, "recount": None}
            await hold.record({**(await self._numbers(hold.batch)).fields(), **unbalanced}, 0)
        elif reached is not None:
            await hold.record({**numbers.fields(), "recount": {**state, "after": reached}}, 0)
        else:
            await self._settle(hold, numbers, state["rounds"])

    async def _settle(self, hold: AuditHold, numbers: _Numbers, rounds: int) -> None:
        """A whole recount found everything."""
        batch, balanced = hold.batch, numbers.parked == 0
        over_at = ended_at(batch) + timedelta(seconds=self._times.retention)
        closed = self._now() >= over_at
        stage = "closed" if closed else "balanced" if balanced else "open"
        fields = {
            **numbers.fields(),
            "stage": stage,
            "balanced": balanced,
            "pace": None,
            "recount": {"after": FROM_THE_START, "rounds": rounds + 1},
        }
        await hold.record(fields, None if closed else self._until_next(over_at, rounds))
        if balanced and not batch["audit"]["balanced"]:
            self._reports.balanced((self._now() - ended_at(batch)).total_seconds())
            _log.info("balanced", extra={"event": "balanced", "batch_id": batch["_id"]})

    def _until_next(self, over_at: datetime, rounds: int) -> float:
        left = (over_at - self._now()).total_seconds()
        return max(0.0, min(self._times.backoff(rounds), left))


def will_never_confirm(emitted: Document, sink: Sink, offsets: Offsets) -> bool:
    """Whether the sink has passed the segment's events, or the log no longer holds them all."""
    partition = emitted["partition"]
    begin, end = offsets.begin.get(partition), offsets.end.get(partition)
    if begin is None or end is None:
        return False
    if begin > emitted["first_offset"] or end <= emitted["last_offset"]:
        return True
    committed = offsets.committed[sink].get(partition)
    return committed is not None and committed > emitted["last_offset"]
