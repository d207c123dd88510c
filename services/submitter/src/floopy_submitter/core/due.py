"""Shards that are due: found by one look, claimed side by side, submitted in step with each other.

What works in step asks the database the same at the same moments, and such questions travel as one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection

from floopy_common.providers.port import AccountMissing, ProviderDirectory
from floopy_submitter.core.kept import SMALL
from floopy_submitter.core.slots import Slots
from floopy_submitter.core.waiting import Breaker
from floopy_submitter.core.wanted import is_stale, may_submit
from floopy_submitter.ports import BatchReader, Claim, Document, DueShards, Hit

MOST_LARGE = 4
"""Shards larger than `SMALL` that are submitted at the same time: each takes some megabytes."""

Submit = Callable[[Claim, Document], Awaitable[None]]
"""Submits a claimed shard of a batch that was read a moment ago."""


class DueWork:
    """Finds shards that are due and has each submitted under a lease, several beside each other."""

    def __init__(
        self,
        *,
        shards: DueShards,
        batches: BatchReader,
        providers: ProviderDirectory,
        slots: Slots,
        breaker: Breaker,
        submit: Submit,
        defer: float,
        hit: Hit,
    ) -> None:
        """`defer`: seconds until a shard that may not be submitted now is thought of again."""
        self._shards = shards
        self._batches = batches
        self._providers = providers
        self._slots = slots
        self._breaker = breaker
        self._submit = submit
        self._defer = defer
        self._hit = hit
        self._one_at_a_time: set[str] = set()
        self._large = 0

    async def step(self) -> bool:
        """Start what is due and fits; False: a wake-up or the end of a job says when there is more."""
        more = True
        while more and self._slots.free > 0:
            # where creates take turns, a second job would only wait for the first
            without = self._breaker.paused() | (self._slots.accounts & self._one_at_a_time)
            rows, more = await self._slots.offered(self._find, without)
            await self._learn({row["account_id"] for row in rows})
            chosen = self._slots.share(rows, self._one_at_a_time, _is_large, MOST_LARGE - self._large)
            if not chosen:
                break
            started = await asyncio.gather(*(self._begin(row) for row in chosen))
            more = more or not all(started)
        return False

    async def _find(self, most: int, without: Collection[str]) -> list[Document]:
        largest = SMALL if self._large >= MOST_LARGE else None
        return await self._shards.due(most, without_accounts=without, largest=largest)

    async def _learn(self, accounts: Collection[str]) -> None:
        """Which of the accounts can have only one create at a time."""
        shows = await asyncio.gather(*(self._shows_attempts(account) for account in accounts))
        for account, several in zip(accounts, shows, strict=True):
            (self._one_at_a_time.discard if several else self._one_at_a_time.add)(account)

    async def _shows_attempts(self, account_id: str) -> bool:
        try:
            return (await self._providers.for_account(account_id)).shows_attempts
        except AccountMissing:
            return True

    async def _begin(self, row: Document) -> bool:
        """Whether the shard is being submitted now."""
        batch = await self._batches.get(row["batch_id"])
        if is_stale(batch, row):
            await self._shards.discard(row)
        elif batch is None or not may_submit(batch, row):
            await self._shards.defer(row, self._defer)
        elif (claim := await self._shards.claim(row)) is not None:
            self._hit("submit.after_claim")
            large = _is_large(row)
            self._large += large
            self._slots.start(row["account_id"], self._run(claim, batch, large=large))
            return True
        return False

    async def _run(self, claim: Claim, batch: Document, *, large: bool) -> None:
        try:
            await self._submit(claim, batch)
        finally:
            self._large -= large


def _is_large(row: Document) -> bool:
    # 0: what is left of a shard without its refused lines, measured only when it is sent
    return not 0 < int(row["bytes"]) <= SMALL
