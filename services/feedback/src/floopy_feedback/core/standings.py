"""Keeps the standings of models and tells of every change once it is stored."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TypeVar

from floopy_common.events.scores import ROUTING_SCORE_UPDATED, RoutingScore, routing_event
from floopy_feedback.ports import Document, Key, Sender, Standings

_T = TypeVar("_T")


class StandingKeeper:
    """One step renews every standing that has news, however many segments brought them, and publishes it.

    Standings are read, written and sent side by side, so that many of them cost few calls.
    """

    def __init__(self, *, standings: Standings, sender: Sender, now: Callable[[], datetime]) -> None:
        self._standings = standings
        self._sender = sender
        self._now = now

    async def step(self) -> bool:
        """Always False: what comes meanwhile waits for the loop's interval, so that news coalesces."""
        pending: dict[Key, list[Document]] = {}
        for rollup in await self._standings.pending():
            key = (rollup["org_id"], rollup["provider"], rollup["model"])
            pending.setdefault(key, []).append(rollup)
        contained = await self._renew(list(pending))
        await self._standings.settle([rollup for key in contained for rollup in pending[key]])
        await _together([self._publish(score) for score in await self._standings.unpublished()])
        return False

    async def _renew(self, keys: Sequence[Key]) -> list[Key]:
        """Those whose stored standing contains what is pending: not where another writer came between."""
        # read before the rollups: then a standing that is still the same afterwards has missed none of them
        before = await _together([self._standings.standing(*key) for key in keys])
        totals = await self._standings.totals(keys)
        after = {
            key: standing_of(key, totals.get(key), known, self._now())
            for key, known in zip(keys, before, strict=True)
        }
        news = [score for score in after.values() if score is not None]
        stored = await _together([self._standings.replace(score) for score in news])
        overtaken = [score for score, is_stored in zip(news, stored, strict=True) if not is_stored]
        return [key for key, score in after.items() if score is None or score not in overtaken]

    async def _publish(self, score: RoutingScore) -> None:
        _, key, value = routing_event(score)
        await self._sender.send(ROUTING_SCORE_UPDATED, key.encode(), value)
        await self._standings.published(score)


async def _together(work: Sequence[Awaitable[_T]]) -> list[_T]:
    """What each gives, once all have ended; the first failure is raised then."""
    results = await asyncio.gather(*work, return_exceptions=True)
    given: list[_T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        given.append(result)
    return given


def standing_of(
    key: Key, total: Document | None, before: RoutingScore | None, now: datetime
) -> RoutingScore | None:
    """The standing that `total` of the latest rollups makes; None when it says nothing new."""
    if total is None:
        return None
    org_id, provider, model = key
    after = RoutingScore(
        org_id=org_id,
        provider=provider,
        model=model,
        version=1 if before is None else before.version + 1,
        scorer_version=total["scorer_version"],
        quality=min(1.0, round(total["quality_sum"] / total["lines"], 4)),
        lines=total["lines"],
        segments=total["segments"],
        updated_at=now,
    )
    unchanged = {"version": after.version, "updated_at": now}
    return None if before is not None and before.model_copy(update=unchanged) == after else after
