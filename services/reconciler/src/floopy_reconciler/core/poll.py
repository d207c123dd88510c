"""Looks at provider batches when they are due: many at a time, none in another's way."""

import asyncio
import logging
from collections import Counter
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from floopy_common.domain.shard import URGENT
from floopy_common.providers.port import (
    AccountMissing,
    BatchProvider,
    NotFound,
    ProviderBatch,
    ProviderDirectory,
    ProviderError,
)
from floopy_reconciler.core.cancel import cancel_upstream, wants_cancel
from floopy_reconciler.core.collector import Collector
from floopy_reconciler.core.look import Look, Pace, understand
from floopy_reconciler.core.pool import Pool
from floopy_reconciler.ports import Changed, Document, Hit, LookReports, LooksStore, Now

_log = logging.getLogger(__name__)


class LookOutcome(StrEnum):
    """How a look went; a label of its counter."""

    UNCHANGED = "unchanged"
    CHANGED = "changed"
    ENDED = "ended"
    REGRESSED = "regressed"
    UNAVAILABLE = "unavailable"
    LOST = "lost"


class Listings(Protocol):
    """Looks at many shards of an account at once."""

    async def start(self) -> set[str]:
        """Start what is due; the accounts whose shards are looked at that way, by whomever."""
        ...

    def floor(self, account_id: str) -> float:
        """Seconds between two looks that an account's share of all there is to look at leaves."""
        ...


class Poller:
    """Finds due looks, claims each, and carries it out beside the others."""

    def __init__(
        self,
        *,
        shards: LooksStore,
        providers: ProviderDirectory,
        collector: Collector,
        listings: Listings,
        pool: Pool,
        pace: Pace,
        claim_for: float,
        changed: Changed,
        reports: LookReports,
        now: Now,
        hit: Hit,
    ) -> None:
        self._shards = shards
        self._providers = providers
        self._collector = collector
        self._listings = listings
        self._pool = pool
        self._pace = pace
        self._claim_for = claim_for
        self._changed = changed
        self._reports = reports
        self._now = now
        self._hit = hit

    async def step(self) -> bool:
        """Start what is due and fits; True when more may be due."""
        listed = await self._listings.start()
        looks = self._pool
        if looks.free <= 0:
            return False
        room = looks.free
        due = await self._shards.due_looks(room, listed.union(looks.saturated()))
        fitting: list[Document] = []
        taken: Counter[str] = Counter()
        for shard in due:
            taken[shard["account_id"]] += 1
            if taken[shard["account_id"]] <= looks.room_for(shard["account_id"]):
                fitting.append(shard)
        started = await asyncio.gather(*(self._start(shard) for shard in fitting))
        return any(started) and len(due) == room

    async def _start(self, shard: Document) -> bool:
        claimed = await self._shards.claim_look(shard["_id"], self._claim_for)
        if claimed is None:
            return False
        self._pool.start(claimed["account_id"], self.look(claimed, self._late(shard)))
        return True

    def _late(self, shard: Document) -> float:
        due_at = due_since(shard)
        return 0.0 if due_at is None else (self._now() - due_at).total_seconds()

    async def look(self, shard: Document, late: float = 0.0) -> None:
        """One look at one provider batch; whatever it ends in, the next one is set."""
        async with self._shards.keeping(shard, self._claim_for):
            outcome = await self._look(shard)
        self._reports.looked(outcome.value, late)

    async def _look(self, shard: Document) -> LookOutcome:
        try:
            provider = await self._providers.for_account(shard["account_id"])
            seen = await self._ask(provider, shard)
        except NotFound:
            return await self._failed(shard, lost=True)
        except (ProviderError, AccountMissing) as error:
            _log.warning(
                "no look at a provider batch",
                extra={"event": "look_failed", "shard_id": shard["_id"], "cause": str(error)},
            )
            return await self._failed(shard, lost=False)
        return await self._seen(shard, seen, provider)

    async def _ask(self, provider: BatchProvider, shard: Document) -> ProviderBatch:
        if wants_cancel(shard):
            cancelled = await cancel_upstream(provider, shard, self._shards, self._hit)
            if cancelled is not None:
                return cancelled
        return await provider.get(shard["provider_batch_id"])

    async def _failed(self, shard: Document, *, lost: bool) -> LookOutcome:
        failures = ((shard.get("poll") or {}).get("failures") or 0) + 1
        await self._shards.record_failure(shard, self._pace.after_failure(failures), lost=lost)
        if not lost:
            return LookOutcome.UNAVAILABLE
        _log.error(
            "the provider does not know a batch it accepted",
            extra={"event": "provider_lost", "shard_id": shard["_id"]},
        )
        return LookOutcome.LOST

    async def _seen(self, shard: Document, seen: ProviderBatch, provider: BatchProvider) -> LookOutcome:
        look = understand(shard, seen)
        after = await self._shards.record_look(
            shard,
            status=look.status.value,
            counts=look.counts,
            files=look.files,
            interval=self._pace.jittered(
                self._pace.after(shard, look, self._listings.floor(shard["account_id"]))
            ),
            answered=not look.shows,
        )
        if after is not None:
            if look.shows:
                await self._changed(shard["batch_id"])
                # who waits for this look reads the batch next, so the batch comes first
                await self._shards.answer_look(after)
            if look.status.is_terminal:
                self._collector.collect(after, look, provider)
        return outcome_of(look)


def due_since(shard: Document) -> datetime | None:
    """When the shard's look became due; an urgent one says so apart."""
    poll = shard.get("poll") or {}
    next_at: datetime | None = poll.get("next_at")
    due_at: datetime | None = poll.get("due_at") if next_at is not None and next_at <= URGENT else next_at
    return due_at


def outcome_of(look: Look) -> LookOutcome:
    if look.regressed:
        return LookOutcome.REGRESSED
    if look.status.is_terminal:
        return LookOutcome.ENDED
    return LookOutcome.CHANGED if look.changed else LookOutcome.UNCHANGED
