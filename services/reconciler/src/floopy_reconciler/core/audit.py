"""The audit: five numbers out of receipts, and whatever no sink will confirm by itself is emitted again.

Many batches are audited together, each under a lease of its own: a look at their sums tells which of them
have moved, and only those are claimed.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from floopy_common.domain.auditing import Pause, Standing
from floopy_common.domain.batch import BatchStatus
from floopy_common.domain.errors import LeaseLost
from floopy_common.domain.segment import Sink
from floopy_reconciler.core.agenda import side_by_side
from floopy_reconciler.core.cleanup import ended_at
from floopy_reconciler.core.recount import FROM_THE_START, TOGETHER, Counted, Recount, plans_of
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

_BATCHES = 32
"""Batches audited together, which share what a call costs."""
_LINES = 250_000
"""Lines of batches that are audited together: some 0.3 s of counting rows, far less than a lease lasts."""
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

    @property
    def pause(self) -> Pause:
        """Between audits of a batch that does not move."""
        return Pause(self.interval, self.backoff_min)


@dataclass(frozen=True)
class _Finding:
    """What an audit leaves in a batch: fields of `audit`, and when it is due again."""

    hold: AuditHold
    fields: Document
    next_in: float | Pause | None


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
        """The batches longest due, some at a time; whether there may be more to do at once."""
        due = await self._audits.due(_BATCHES)
        group = together(due)
        if not group:
            return False
        standings = await self._audits.survey(plans_of(group))
        idle = [batch for batch in group if self._is_idle(batch, standings[batch["_id"]])]
        if idle:
            await self._audits.put_off(idle, self._times.pause)
        idle_ids = {batch["_id"] for batch in idle}
        moved = [batch for batch in group if batch["_id"] not in idle_ids]
        again = await self._take(moved, standings) if moved else False
        return again or len(due) == _BATCHES or len(group) < len(due)

    def _is_idle(self, batch: Document, standing: Standing) -> bool:
        """Whether a look under a lease would find nothing to be done or told."""
        try:
            return self._is_unmoved(batch, standing)
        except Exception:  # noqa: BLE001 - what is wrong with it comes up under its lease, the others go on
            return False

    def _is_unmoved(self, batch: Document, standing: Standing) -> bool:
        audit = batch["audit"]
        if audit["stage"] != "open" or has_moved(audit, standing) or is_over(batch, standing):
            return False
        if standing.waiting_since is None:
            return not misses_receipts(standing)
        return bool(self._now() < standing.waiting_since + timedelta(seconds=self._times.backoff(0)))

    async def _take(self, batches: Sequence[Document], standings: Mapping[str, Standing]) -> bool:
        """Claim the batches and audit them; whether one of them is due again at once."""
        holds = await self._audits.claim(batches)
        if holds:
            self._hit("audit.after_claim")
        try:
            return await self._audit(holds, standings)
        except LeaseLost:
            raise  # of one that somebody else audits by now; the others are done
        except Exception:
            if len(holds) < 2:
                raise
            _log.exception("an audit of several batches failed", extra={"event": "audit_failed"})
        # each for itself, so that one cannot keep the others from their audit
        await side_by_side(self._alone(hold, standings) for hold in holds)
        return False

    async def _alone(self, hold: AuditHold, standings: Mapping[str, Standing]) -> None:
        await self._audit([hold], standings)

    async def _audit(self, holds: Sequence[AuditHold], standings: Mapping[str, Standing]) -> bool:
        unmarked = [hold.batch for hold in holds if standings[hold.batch["_id"]].waiting_since is not None]
        waiting = await self._confirm(unmarked) if unmarked else set()
        over: list[AuditHold] = []
        others: list[AuditHold] = []
        for hold in holds:
            batch_id = hold.batch["_id"]
            is_done = batch_id not in waiting and is_over(hold.batch, standings[batch_id])
            (over if is_done else others).append(hold)
        findings = await self._complete(over, standings) if over else []
        findings += [self._incomplete(hold, standings[hold.batch["_id"]]) for hold in others]
        settled = [hold.batch for hold in others if hold.batch["_id"] not in waiting]
        await self._look_for_lost_receipts(settled, standings)
        await side_by_side(self._record(finding) for finding in findings)
        return any(finding.next_in == 0 for finding in findings)

    async def _record(self, finding: _Finding) -> None:
        hold = finding.hold
        await hold.record(finding.fields, finding.next_in)
        self._hit("audit.after_record")
        if finding.fields.get("balanced") and not hold.batch["audit"]["balanced"]:
            self._reports.balanced((self._now() - ended_at(hold.batch)).total_seconds())
            _log.info("balanced", extra={"event": "balanced", "batch_id": hold.batch["_id"]})

    async def _confirm(self, batches: Sequence[Document]) -> set[str]:
        """Mark what every sink has confirmed; the batches of which some emitted segment is not."""
        plans, waiting, after = plans_of(batches), set[str](), FROM_THE_START
        while True:
            emitted = await self._audits.emitted(plans, after, TOGETHER)
            missing = await self._audits.unconfirmed(emitted)
            confirmed = [segment["_id"] for segment in emitted if segment["_id"] not in missing]
            if confirmed:
                await self._audits.confirm(confirmed)
                self._hit("audit.after_confirm")
            late = [segment for segment in emitted if segment["_id"] in missing and self._is_late(segment)]
            if late:
                await self._send_again(late)
            waiting |= {segment["batch_id"] for segment in emitted if segment["_id"] in missing}
            if len(emitted) < TOGETHER or len(plans) > 1:
                return waiting
            after = emitted[-1]["no"]

    def _is_late(self, segment: Document) -> bool:
        patience = self._times.backoff(segment.get("resends") or 0)
        return bool(self._now() >= segment["emitted"]["at"] + timedelta(seconds=patience))

    async def _send_again(self, late: Sequence[Document]) -> None:
        """Those that a sink has passed, or that the log has lost.

        A sink stores its receipt before it commits, so receipts are read after the offsets; the log's end is
        read after the segments, so what was emitted is before it unless it is lost.
        """
        offsets = await self._offsets.read()
        if offsets is None:
            return
        missing = await self._audits.unconfirmed(late)
        lost = [
            segment
            for segment in late
            if any(
                will_never_confirm(segment["emitted"], sink, offsets)
                for sink in missing.get(segment["_id"], ())
            )
        ]
        offered = await asyncio.gather(*(self._audits.emit_again(segment) for segment in lost))
        again = Counter(segment["batch_id"] for segment, done in zip(lost, offered, strict=True) if done)
        if again:
            self._tell_again(again)

    def _tell_again(self, again: Mapping[str, int]) -> None:
        self._reports.sent_again(sum(again.values()))
        for batch_id, segments in again.items():
            _log.warning(
                "segments are emitted again",
                extra={"event": "emitted_again", "batch_id": batch_id, "segments": segments},
            )
        self._emit_again()

    async def _look_for_lost_receipts(
        self, batches: Sequence[Document], standings: Mapping[str, Standing]
    ) -> None:
        """Only where sinks are behind though no segment is waiting for them."""
        suspected = [batch for batch in batches if misses_receipts(standings[batch["_id"]])]
        await side_by_side(self._reopen(*plan) for plan in plans_of(suspected).items())

    async def _reopen(self, batch_id: str, plan_id: str) -> None:
        await self._audits.reopen(batch_id, plan_id)

    def _incomplete(self, hold: AuditHold, standing: Standing) -> _Finding:
        fields = {**numbers_of(standing), "stage": "open", "balanced": False, "recount": None}
        if has_moved(hold.batch["audit"], standing):
            interval = self._times.interval
            return _Finding(hold, {**fields, "pace": interval}, interval)
        return _Finding(hold, fields, self._times.pause)

    async def _complete(
        self, holds: Sequence[AuditHold], standings: Mapping[str, Standing]
    ) -> list[_Finding]:
        """Every receipt is there: believed once the rows have been counted, and again from time to time."""
        counted = await self._recount.run([(hold, _recount_of(hold.batch)["after"]) for hold in holds])
        self._hit("audit.after_recount")
        held = [hold for hold in holds if hold.batch["_id"] in counted]
        void = [hold.batch for hold in held if counted[hold.batch["_id"]].void]
        now = {**standings, **(await self._audits.survey(plans_of(void)) if void else {})}
        return [self._counted(hold, now[hold.batch["_id"]], counted[hold.batch["_id"]]) for hold in held]

    def _counted(self, hold: AuditHold, standing: Standing, counted: Counted) -> _Finding:
        numbers, state = numbers_of(standing), _recount_of(hold.batch)
        if counted.void:
            unbalanced = {"stage": "open", "balanced": False, "pace": None, "recount": None}
            return _Finding(hold, {**numbers, **unbalanced}, 0)
        if counted.reached is not None:
            return _Finding(hold, {**numbers, "recount": {**state, "after": counted.reached}}, 0)
        return self._settled(hold, standing, state["rounds"])

    def _settled(self, hold: AuditHold, standing: Standing, rounds: int) -> _Finding:
        """A whole recount found everything."""
        balanced = standing.parked == 0
        over_at = ended_at(hold.batch) + timedelta(seconds=self._times.retention)
        closed = self._now() >= over_at
        fields = {
            **numbers_of(standing),
            "stage": "closed" if closed else "balanced" if balanced else "open",
            "balanced": balanced,
            "pace": None,
            "recount": {"after": FROM_THE_START, "rounds": rounds + 1},
        }
        return _Finding(hold, fields, None if closed else self._until_next(over_at, rounds))

    def _until_next(self, over_at: datetime, rounds: int) -> float:
        left = (over_at - self._now()).total_seconds()
        return max(0.0, min(self._times.backoff(rounds), left))


def together(batches: Sequence[Document]) -> list[Document]:
    """The first of the batches: as many as can be looked at by one call, and counted before leases end."""
    segments = lines = 0
    group: list[Document] = []
    for batch in batches:
        segments += batch["plan"]["segments"]
        lines += batch["plan"]["total"]
        if group and (segments > TOGETHER or lines > _LINES):
            break
        group.append(batch)
    return group


def numbers_of(standing: Standing) -> Document:
    """The five numbers, by their names in `audit`."""
    by_sink = {name: standing.confirmed[sink] for sink, name in _NUMBER_OF.items()}
    return {"answered": standing.answered, **by_sink, "parked": standing.parked}


def has_moved(audit: Document, standing: Standing) -> bool:
    """Whether the numbers are others than an earlier audit has left."""
    return any(audit.get(name) != value for name, value in numbers_of(standing).items())


def is_over(batch: Document, standing: Standing) -> bool:
    """Whether the batch has ended and every line is confirmed by every sink, as far as receipts say."""
    total = batch["plan"]["total"]
    if standing.answered != total or any(lines != total for lines in standing.confirmed.values()):
        return False
    return BatchStatus(batch["status"]).is_terminal


def misses_receipts(standing: Standing) -> bool:
    """Whether sinks have confirmed less than their events have told them of."""
    return min(standing.confirmed.values()) < standing.emitted


def _recount_of(batch: Document) -> Document:
    """{after, rounds}: where the recount goes on, and how many have come to their end."""
    return batch["audit"].get("recount") or {"after": FROM_THE_START, "rounds": 0}


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
