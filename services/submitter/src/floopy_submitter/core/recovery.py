"""Recovery: a create whose outcome nobody knows is looked for, adopted, or given up after long enough."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from floopy_common.domain.errors import LeaseLost
from floopy_common.domain.shard import ADOPTED_UNPROVEN, AttemptPhase, ShardState
from floopy_common.providers.port import AccountMissing, ProviderBatch, ProviderDirectory, ProviderError
from floopy_submitter.core.orphans import OrphanKeeper
from floopy_submitter.core.search import Search
from floopy_submitter.core.slots import Slots
from floopy_submitter.core.waiting import Backoff
from floopy_submitter.ports import (
    Announce,
    BatchReader,
    Changed,
    Claim,
    Document,
    Hit,
    Hold,
    Report,
    UnclearShards,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SettleRule:
    """When an attempt that is not found may be given up; `window` in seconds."""

    window: float
    looks: int
    max_attempts: int

    def is_over(self, shard: Document) -> bool:
        """Whether the look that has just shown nothing was the last one needed.

        The server's clock alone decides: this look began a whole window after the fence.
        """
        attempt = shard["attempts"][-1]
        began = shard["search"]["began_at"]
        waited: timedelta = began - attempt["creating_at"]
        looks: int = attempt["looks"] + 1
        return waited >= timedelta(seconds=self.window) and looks >= self.looks

    def needs_operator(self, shard: Document) -> bool:
        """Whether the attempt to be given up was the last one that a machine may start."""
        given_up = [a for a in shard["attempts"] if a["phase"] == AttemptPhase.ABANDONED.value]
        return len(given_up) + 1 >= self.max_attempts


class Recovery:
    """Finds shards whose last attempt is unclear and looks for it, several beside each other."""

    def __init__(
        self,
        *,
        shards: UnclearShards,
        batches: BatchReader,
        search: Search,
        providers: ProviderDirectory,
        keeper: OrphanKeeper,
        slots: Slots,
        pace: Backoff,
        rule: SettleRule,
        first_look: float,
        announce: Announce,
        changed: Changed,
        free: Callable[[], None],
        report: Report,
        hit: Hit,
    ) -> None:
        self._shards = shards
        self._batches = batches
        self._search = search
        self._providers = providers
        self._keeper = keeper
        self._slots = slots
        self._pace = pace
        self._rule = rule
        self._first_look = first_look
        self._announce = announce
        self._changed = changed
        self._free = free
        self._report = report
        self._hit = hit

    async def step(self) -> bool:
        """Start looks that are due and fit; True when anything was started."""
        worked = False
        while self._slots.free > 0:
            shard = await self._slots.next_from(self._shards.next_unclear)
            if shard is None:
                break
            claim = await self._shards.claim_search(shard)
            if claim is not None:
                self._hit("recovery.after_claim")
                self._slots.start(shard["account_id"], self.look(claim))
                worked = True
        return worked

    async def look(self, claim: Claim) -> None:
        """One look for one shard's last attempt."""
        async with claim.hold() as hold:
            await self._look(hold)
        self._report.moved(hold.shard["state"])
        if hold.shard["state"] != ShardState.SUBMIT_UNKNOWN.value:
            self._free()
            await self._changed(claim.shard["batch_id"])

    async def _look(self, hold: Hold) -> None:
        shard = hold.shard
        try:
            provider = await self._providers.for_account(shard["account_id"])
            attempt = shard["attempts"][-1]
            found = await self._search.look(provider, shard, attempt)
        except (ProviderError, AccountMissing) as error:
            _log.warning(
                "no look for an unclear create",
                extra={"event": "search_failed", "shard_id": shard["_id"], "cause": str(error)},
            )
            failures = (shard["search"].get("failures") or 0) + 1
            await hold.no_look(self._pace.nth(failures))
            return
        if found.ours:
            await self._adopt(hold, _oldest_first(found.ours), "adopted")
        elif len(found.possible) == 1:
            await self._adopt(hold, found.possible, ADOPTED_UNPROVEN)
        elif not found.possible and self._rule.is_over(shard):
            await self._give_up(hold)
        else:
            # several that may be ours: their results will tell, and until then nothing is spent again
            await hold.looked(self._pace.nth(attempt["looks"]))

    async def _adopt(self, hold: Hold, ours: list[ProviderBatch], resolution: str) -> None:
        shard = hold.shard
        kept, *others = ours
        if others:
            surplus = [batch.id for batch in others]
            await self._keeper.note(shard, shard["attempts"][-1]["id"], surplus, "duplicate")
        batch = await self._batches.get(shard["batch_id"])
        if batch is None:
            raise LeaseLost(shard["_id"])
        await hold.recorded(kept.id, self._announce(batch, shard["_id"]), self._first_look, resolution)
        self._report.resolved(shard["provider"], resolution)
        self._hit("recovery.after_adopt")

    async def _give_up(self, hold: Hold) -> None:
        shard = hold.shard
        operator = self._rule.needs_operator(shard)
        await hold.abandon(operator=operator)
        self._report.resolved(shard["provider"], "operator" if operator else "given_up")
        _log.error(
            "an unclear create was given up",
            extra={"event": "submit_given_up", "shard_id": shard["_id"], "operator": operator},
        )
        self._hit("recovery.after_abandon")


def _oldest_first(batches: list[ProviderBatch]) -> list[ProviderBatch]:
    return sorted(batches, key=lambda batch: (batch.created_at, batch.id))
