"""Shards that are due: found by one look, claimed side by side, submitted in step with each other.

What works in step asks the database the same at the same moments, and such questions travel as one.

A shard that two submitters in a row have not outlived is submitted when nothing else is planned or submitted
(`solitude.py`). After three it is left alone for a while, each time longer; it is never given up.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from floopy_common.providers.port import AccountMissing, ProviderDirectory
from floopy_submitter.core.kept import SMALL
from floopy_submitter.core.planning import PLANNING
from floopy_submitter.core.slots import Slots
from floopy_submitter.core.solitude import Job, Solitude
from floopy_submitter.core.waiting import Backoff, Breaker
from floopy_submitter.core.wanted import is_stale, may_submit
from floopy_submitter.ports import BatchReader, Claim, Document, DueShards, Hit, Report

_log = logging.getLogger(__name__)

SUBMITTING = "submitting"
"""The kind of work, to whom something is to be alone."""
_LIVES = 3
"""Deaths of submitters after which a shard is left alone for a while."""

MOST_LARGE = 4
"""Shards larger than `SMALL` that are submitted at the same time: each takes some megabytes."""

Submit = Callable[[Claim, Document], Coroutine[Any, Any, None]]
"""Submits a claimed shard of a batch that was read a moment ago."""


class DueWork:
    """Finds shards that are due and has each submitted under a lease, several beside each other."""

    not_beside = (PLANNING, SUBMITTING)

    def __init__(
        self,
        *,
        shards: DueShards,
        batches: BatchReader,
        providers: ProviderDirectory,
        slots: Slots,
        breaker: Breaker,
        solitude: Solitude,
        submit: Submit,
        defer: float,
        rest: Backoff,
        report: Report,
        hit: Hit,
    ) -> None:
        """`defer`: seconds until a shard that may not be submitted now is thought of again.

        `rest`: how long one is left alone that its submitters die of.
        """
        self._shards = shards
        self._batches = batches
        self._providers = providers
        self._slots = slots
        self._breaker = breaker
        self._solitude = solitude
        self._submit = submit
        self._defer = defer
        self._rest = rest
        self._report = report
        self._hit = hit
        self._one_at_a_time: set[str] = set()
        self._large = 0

    async def step(self) -> bool:
        """Start what is due and fits; False: a wake-up or the end of a job says when there is more."""
        with self._solitude.beginning(SUBMITTING) as may_begin:
            if may_begin:
                await self._step()
        return False

    async def left_behind(self) -> Document | None:
        """A shard that several submitters have not outlived."""
        return await self._shards.next_lethal()

    async def begin_alone(self, found: Document) -> Job | None:
        claimed = await self._claimed(found)
        if claimed is None:
            return None
        claim, batch = claimed
        lease = claim.shard["lease"]
        # after a while alone nobody has died in between, and it has its next try
        if lease["taken_over"] and lease["deaths"] >= _LIVES:
            await self._leave_alone(claim)
            return None
        return found["account_id"], self._submit(claim, batch)

    async def _leave_alone(self, claim: Claim) -> None:
        deaths = claim.shard["lease"]["deaths"]
        async with claim.hold() as hold:
            await hold.leave_alone(self._rest.nth(deaths - _LIVES))
        self._report.left_alone()
        _log.error(
            "a shard kills its submitters",
            extra={"event": "shard_left_alone", "shard_id": claim.shard["_id"], "deaths": deaths},
        )

    async def _step(self) -> None:
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
        claimed = await self._claimed(row)
        if claimed is None:
            return False
        large = _is_large(row)
        self._large += large
        self._slots.start(row["account_id"], self._run(*claimed, large=large))
        return True

    async def _claimed(self, row: Document) -> tuple[Claim, Document] | None:
        """The shard and its batch; None where it is not to be submitted, or another worker does it."""
        batch = await self._batches.get(row["batch_id"])
        if is_stale(batch, row):
            await self._shards.discard(row)
        elif batch is None or not may_submit(batch, row):
            await self._shards.defer(row, self._defer)
        elif (claim := await self._shards.claim(row)) is not None:
            self._hit("submit.after_claim")
            return claim, batch
        return None

    async def _run(self, claim: Claim, batch: Document, *, large: bool) -> None:
        try:
            await self._submit(claim, batch)
        finally:
            self._large -= large


def _is_large(row: Document) -> bool:
    # 0: what is left of a shard without its refused lines, measured only when it is sent
    return not 0 < int(row["bytes"]) <= SMALL
