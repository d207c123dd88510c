"""Orphans: provider batches nobody wants are found, noted, cancelled, and never become a line's answer."""

import logging
from collections.abc import Callable, Iterable

from floopy_common.domain.shard import AttemptPhase
from floopy_common.providers.port import (
    AccountMissing,
    NotFound,
    ProviderBatch,
    ProviderDirectory,
    ProviderError,
)
from floopy_submitter.core.search import Search
from floopy_submitter.core.slots import Slots
from floopy_submitter.core.waiting import Backoff
from floopy_submitter.ports import Document, GivenUpAttempts, Hit, Orphans, Report

_log = logging.getLogger(__name__)


class OrphanKeeper:
    """Notes orphans and has them cancelled; the note comes first, so that no crash forgets one."""

    def __init__(
        self,
        *,
        orphans: Orphans,
        providers: ProviderDirectory,
        backoff: Backoff,
        claim_for: float,
        report: Report,
        hit: Hit,
        wake: Callable[[], None],
    ) -> None:
        self._orphans = orphans
        self._providers = providers
        self._backoff = backoff
        self._claim_for = claim_for
        self._report = report
        self._hit = hit
        self._wake = wake

    async def note(self, shard: Document, attempt_id: str, batches: Iterable[str], reason: str) -> None:
        """These provider batches are not to be kept."""
        for provider_batch_id in batches:
            if await self._orphans.insert(shard, attempt_id, provider_batch_id, reason):
                self._report.resolved(shard["provider"], f"orphan_{reason}")
                _log.error(
                    "a provider batch nobody wants",
                    extra={"event": "orphan_found", "shard_id": shard["_id"], "reason": reason},
                )
                self._hit("orphan.after_note")
        self._wake()

    async def step(self) -> bool:
        """Have one orphan cancelled, or look whether it has ended; True when there was one."""
        orphan = await self._orphans.claim_due(self._claim_for)
        if orphan is None:
            return False
        account, name = orphan["account_id"], orphan["provider_batch_id"]
        if await self._orphans.wanted(account, name):
            _log.error("an orphan that a shard counts on", extra={"event": "orphan_wanted", "id": name})
            await self._orphans.seen(orphan, "wanted", {}, None)
            return True
        try:
            seen = await (await self._providers.for_account(account)).cancel(name)
        except NotFound:
            await self._orphans.seen(orphan, "not_found", {}, None)
        except (ProviderError, AccountMissing) as error:
            _log.warning(
                "an orphan was not cancelled", extra={"event": "orphan_cancel_failed", "cause": str(error)}
            )
            await self._orphans.failed(orphan, self._backoff.nth(orphan["failures"]))
        else:
            self._hit("orphan.after_cancel")
            await self._keep(orphan, seen)
        return True

    async def _keep(self, orphan: Document, seen: ProviderBatch) -> None:
        counts = {"total": seen.total, "completed": seen.completed, "failed": seen.failed}
        delay = None if seen.status.is_terminal else self._backoff.nth(orphan["failures"])
        await self._orphans.seen(orphan, seen.status.value, counts, delay)


class Sweeper:
    """Looks for what given-up attempts may have left, long after anybody waits for it."""

    def __init__(
        self,
        *,
        shards: GivenUpAttempts,
        search: Search,
        providers: ProviderDirectory,
        keeper: OrphanKeeper,
        slots: Slots,
        backoff: Backoff,
        sweep_for: float,
    ) -> None:
        """`sweep_for`: seconds in which an attempt may still leave a provider batch."""
        self._shards = shards
        self._search = search
        self._providers = providers
        self._keeper = keeper
        self._slots = slots
        self._backoff = backoff
        self._sweep_for = sweep_for

    async def step(self) -> bool:
        """Start looks that are due and fit; True when anything was done."""
        worked = await self._shards.give_up_ended()
        while self._slots.free > 0:
            due = await self._slots.next_from(self._shards.next_due)
            if due is None:
                break
            interval = due["sweep"].get("interval")
            delay = self._backoff.shortest if interval is None else min(2 * interval, self._backoff.longest)
            claimed = await self._shards.claim(due, delay)
            if claimed is not None:
                self._slots.start(claimed["account_id"], self.sweep(claimed))
                worked = True
        return worked

    async def sweep(self, shard: Document) -> None:
        """One look for every given-up attempt of a shard."""
        try:
            provider = await self._providers.for_account(shard["account_id"])
            for attempt in shard["attempts"]:
                if attempt["phase"] == AttemptPhase.ABANDONED.value:
                    found = await self._search.look(provider, shard, attempt)
                    # what is only possible may be somebody else's, and is not ours to cancel
                    late = [batch.id for batch in found.ours]
                    await self._keeper.note(shard, attempt["id"], late, "late")
        except ProviderError as error:
            _log.warning(
                "no sweep", extra={"event": "sweep_failed", "shard_id": shard["_id"], "cause": str(error)}
            )
            return
        except AccountMissing:
            _log.warning("no account to sweep", extra={"event": "sweep_failed", "shard_id": shard["_id"]})
        await self._shards.finish(shard, self._sweep_for)
