"""Whose listing is read next, and how often anything can be looked at when there is much of it."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from floopy_reconciler.ports import ListingClaim, ListingTurns

LOOKS_PER_SECOND = 2_000
"""Of one account: reading 20 pages a second takes a fifth of a core."""
ACCOUNTS_PER_SECOND = 40
"""Likewise of accounts, of which each takes a page or a look of its own."""
_CROWD_EVERY = 60.0
_BARRED_FOR = 1.0
_GATHER_FOR = 1.0
"""Seconds in which more shards of a listed account may become due before each is looked at by itself."""

_LONG = 1_000
"""Due shards that are enough for a listing however long it is."""

Read = Callable[[ListingClaim, int], Coroutine[Any, Any, None]]


class Jobs(Protocol):
    """Readings under way in this process."""

    @property
    def free(self) -> int: ...

    def saturated(self) -> list[str]: ...

    def start(self, account_id: str, job: Coroutine[Any, Any, None]) -> None: ...


class Schedule:
    """Starts a reading of every account that has enough due shards to be worth it."""

    def __init__(
        self,
        *,
        listings: ListingTurns,
        jobs: Jobs,
        threshold: int,
        longest: float,
        monotonic: Callable[[], float],
    ) -> None:
        """`longest` between two looks, in seconds."""
        self._listings = listings
        self._jobs = jobs
        self._threshold = threshold
        self._longest = longest
        self._monotonic = monotonic
        self._count_at = 0.0
        self._accounts = 0
        self._large: Mapping[str, int] = {}
        self._pages: dict[str, int] = {}
        self._barred: dict[str, float] = {}
        self._gathering: dict[str, float] = {}

    async def start(self, read: Read) -> set[str]:
        """Accounts whose shards are looked at by a reading, whoever does it, now or in a moment."""
        now = self._monotonic()
        await self._count(now)
        held = await self._listings.held() | set(self._jobs.saturated())
        due = await self._listings.due_accounts(held)
        return held | await self._begin(due, now, read)

    def floor(self, account_id: str) -> float:
        """Seconds between two looks at a shard of the account, for all of them to fit."""
        own = self._large.get(account_id, 0) / LOOKS_PER_SECOND
        return min(self._longest, max(own, self._accounts / ACCOUNTS_PER_SECOND))

    def read(self, account_id: str, pages: int) -> None:
        """An account's listing was read: so long it is, 0 if it is not worth reading."""
        if pages:
            self._pages[account_id] = pages
        else:
            self._pages.pop(account_id, None)

    async def _count(self, now: float) -> None:
        if now >= self._count_at:
            self._count_at = now + _CROWD_EVERY
            self._accounts, self._large = await self._listings.crowd(LOOKS_PER_SECOND)

    async def _begin(self, due: Mapping[str, int], now: float, read: Read) -> set[str]:
        self._barred = {name: until for name, until in self._barred.items() if until > now}
        self._gathering = {name: self._gathering.get(name, now) for name in due if name in self._pages}
        taken = set()
        for account_id, shards in due.items():
            if account_id in self._barred:
                continue
            if shards < max(self._threshold, min(self._pages.get(account_id, 0), _LONG)):
                if now < self._gathering.get(account_id, 0.0) + _GATHER_FOR:
                    taken.add(account_id)
                elif shards < self._threshold:
                    self._pages.pop(account_id, None)
            elif self._jobs.free <= 0 or await self._claim(account_id, shards, read):
                taken.add(account_id)
            else:
                self._barred[account_id] = now + _BARRED_FOR
        return taken

    async def _claim(self, account_id: str, shards: int, read: Read) -> bool:
        claim = await self._listings.claim(account_id, shards)
        if claim is None:
            return False
        self._jobs.start(account_id, read(claim, shards))
        return True
