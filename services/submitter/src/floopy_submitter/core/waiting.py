"""Waiting: how long, for what, and which accounts nothing is sent to meanwhile."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from floopy_common.domain.shard import WaitReason
from floopy_common.providers.port import NotAccepted
from floopy_submitter.ports import Document


@dataclass(frozen=True)
class Backoff:
    """Doubles from `shortest` to `longest`, in seconds."""

    shortest: float
    longest: float

    def after(self, shard: Document, retry_after: float | None) -> float:
        """The next wait of a shard, no sooner than the provider asks but never beyond `longest`."""
        waiting = shard.get("waiting") or {}
        previous = waiting.get("backoff")
        doubled = self.shortest if previous is None else 2 * previous
        return min(max(doubled, retry_after or 0.0), self.longest)

    def nth(self, count: int) -> float:
        """The wait after `count` equal events; a little off, so that what began together drifts apart."""
        grown = min(self.shortest * 2.0 ** min(count, 30), self.longest)
        return grown * random.uniform(0.9, 1.0)  # noqa: S311 - spreads load, protects nothing


def reason_of(refusal: NotAccepted, *, fail_when_full: bool) -> WaitReason | None:
    """What a shard waits for after the provider said: not now. None when it said never, or is not to wait."""
    if refusal.queue_full and fail_when_full and not refusal.blocked:
        return None
    if not (refusal.retryable or refusal.queue_full):
        return None
    if refusal.blocked:
        return WaitReason.BLOCKED
    if refusal.queue_full:
        return WaitReason.QUEUE_FULL
    return WaitReason.RATE_LIMITED if refusal.status == 429 else WaitReason.UNAVAILABLE


class Breaker:
    """Accounts that this process leaves alone for a while, because the provider asked for it."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._until: dict[str, float] = {}

    def pause(self, account_id: str, seconds: float) -> None:
        self._until[account_id] = max(self._until.get(account_id, 0.0), self._monotonic() + seconds)

    def paused(self) -> set[str]:
        now = self._monotonic()
        self._until = {account: until for account, until in self._until.items() if until > now}
        return set(self._until)
