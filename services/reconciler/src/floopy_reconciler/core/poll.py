"""Looks at provider batches when they are due: many at a time, none in another's way."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from floopy_common.domain.errors import LeaseLost
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
from floopy_reconciler.core.look import Look, Pace, understand
from floopy_reconciler.core.ready import is_small
from floopy_reconciler.core.settle import Settler
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


class Pool:
    """Runs a bounded number of jobs, of any one account no more than a share of it."""

    def __init__(
        self, size: int, per_account: int, on_free: Callable[[], None], *, wake_from: int = 1
    ) -> None:
        """`on_free` is called when a job has ended and there is room for `wake_from`."""
        self._size = size
        self._per_account = per_account
        self._on_free = on_free
        self._wake_from = wake_from
        self._running: set[asyncio.Task[None]] = set()
        self._accounts: Counter[str] = Counter()

    @property
    def free(self) -> int:
        return self._size - len(self._running)

    def saturated(self) -> list[str]:
        """Accounts that have all the jobs they may have."""
        return [account for account, jobs in self._accounts.items() if jobs >= self._per_account]

    def room_for(self, account_id: str) -> int:
        """How many more jobs of the account fit."""
        return max(0, min(self.free, self._per_account - self._accounts[account_id]))

    def has_room_for(self, account_id: str) -> bool:
        return self.room_for(account_id) > 0

    def start(self, account_id: str, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(job)
        self._running.add(task)
        self._accounts[account_id] += 1
        task.add_done_callback(lambda done: self._ended(done, account_id))

    def _ended(self, task: asyncio.Task[None], account_id: str) -> None:
        self._running.discard(task)
        self._accounts[account_id] -= 1
        self._accounts += Counter()
        if not task.cancelled() and (error := task.exception()) is not None:
            level = logging.INFO if isinstance(error, LeaseLost) else logging.ERROR
            _log.log(level, "job failed", exc_info=error, extra={"event": "job_failed"})
        if self.free >= self._wake_from:
            self._on_free()

    async def close(self) -> None:
        """Stop every job where it stands; each can be taken up again by anybody."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


@dataclass(frozen=True)
class Pools:
    """Looks are quick and many, downloads slow and few: neither waits for the other."""

    looks: Pool
    listings: Pool
    downloads: Pool
    small_downloads: Pool

    async def close(self) -> None:
        await self.looks.close()
        await self.listings.close()
        await self.downloads.close()
        await self.small_downloads.close()


class Collector:
    """Starts collecting what ended provider batches left, as far as there is room."""

    def __init__(self, settler: Settler, downloads: Pool, small: Pool) -> None:
        """`small`: for the small shards."""
        self._settler = settler
        self._downloads = downloads
        self._small = small

    def room_for(self, account_id: str, *, small: bool) -> int:
        """How many small or other shards of the account may be collected besides those that are."""
        return (self._small if small else self._downloads).room_for(account_id)

    def collect(self, shard: Document, look: Look, provider: BatchProvider) -> None:
        """Without room nothing happens: a later look comes back to it."""
        pool = self._small if is_small(shard) else self._downloads
        if pool.has_room_for(shard["account_id"]):
            pool.start(shard["account_id"], self._settler.settle(shard, look, provider))


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
