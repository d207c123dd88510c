"""How much one organisation may ask of one process at a time: what is over it is refused at once."""

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aiohttp import web

from floopy_api.errors import TooMany
from floopy_api.ports import Monotonic

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_LONGEST_WAIT = 60
"""Seconds that a client is told to wait at most: SDKs heed nothing above."""
_ORGS = 10_000
"""Organisations remembered; those with nothing under way and a full allowance are forgotten first."""


@dataclass(frozen=True)
class Limit:
    """`per_minute` requests on average, as many at once at the start; `at_once` under way. 0: no limit."""

    name: str
    per_minute: int
    at_once: int


@dataclass
class _Use:
    left: float
    at: float
    under_way: int = 0


class Limiter:
    """Counts in this process alone: a guard of its memory and time, no contract over many replicas."""

    def __init__(self, limit: Limit, monotonic: Monotonic) -> None:
        self._limit = limit
        self._monotonic = monotonic
        self._uses: dict[str, _Use] = {}

    @contextmanager
    def one_more(self, org_id: str) -> Iterator[None]:
        """TooMany when that would be more than the organisation's share."""
        use = self._use(org_id)
        limit = self._limit
        if limit.at_once and use.under_way >= limit.at_once:
            raise TooMany(
                f"Rate limit reached for {limit.name}: {use.under_way} are under way. "
                f"Limit: {limit.at_once} at once. Please try again in 1s.",
                retry_after=1,
            )
        if limit.per_minute:
            self._spend(use)
        use.under_way += 1
        try:
            yield
        finally:
            use.under_way -= 1

    def _use(self, org_id: str) -> _Use:
        now = self._monotonic()
        use = self._uses.get(org_id)
        if use is None:
            if len(self._uses) >= _ORGS:
                self._forget(now)
            use = self._uses[org_id] = _Use(float(self._limit.per_minute), now)
        use.left = self._refilled(use, now)
        use.at = now
        return use

    def _refilled(self, use: _Use, now: float) -> float:
        most = float(self._limit.per_minute)
        return min(most, use.left + (now - use.at) * most / 60)

    def _spend(self, use: _Use) -> None:
        if use.left < 1:
            wait = min(_LONGEST_WAIT, math.ceil((1 - use.left) * 60 / self._limit.per_minute))
            raise TooMany(
                f"Rate limit reached for {self._limit.name}. Limit: {self._limit.per_minute} / min. "
                f"Please try again in {wait}s.",
                retry_after=wait,
            )
        use.left -= 1

    def _forget(self, now: float) -> None:
        full = self._limit.per_minute
        self._uses = {
            org_id: use
            for org_id, use in self._uses.items()
            if use.under_way or self._refilled(use, now) < full
        }


class Limits:
    """The limiter of each route that has one, by method and template."""

    def __init__(self, uploads: Limiter, creates: Limiter) -> None:
        self._by_route = {
            ("POST", "/v1/files"): uploads,
            ("POST", "/v1/uploads/{upload_id}/parts"): uploads,
            ("POST", "/v1/batches"): creates,
        }

    def of(self, method: str, route: str) -> Limiter | None:
        return self._by_route.get((method, route))
