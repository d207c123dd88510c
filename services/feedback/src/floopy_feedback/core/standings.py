"""Keeps the standings of models and tells of every change once it is stored."""

from collections.abc import Callable, Sequence
from datetime import datetime

from floopy_common.events.scores import ROUTING_SCORE_UPDATED, RoutingScore, routing_event
from floopy_feedback.ports import Document, Sender, Standings

_Key = tuple[str, str, str]


class StandingKeeper:
    """One step renews every standing that has news, however many segments brought them, and publishes it."""

    def __init__(self, *, standings: Standings, sender: Sender, now: Callable[[], datetime]) -> None:
        self._standings = standings
        self._sender = sender
        self._now = now

    async def step(self) -> bool:
        """Always False: what comes meanwhile waits for the loop's interval, so that news coalesces."""
        pending: dict[_Key, list[Document]] = {}
        for rollup in await self._standings.pending():
            key = (rollup["org_id"], rollup["provider"], rollup["model"])
            pending.setdefault(key, []).append(rollup)
        contained: list[Document] = []
        for key, rollups in pending.items():
            if await self._renew(key):
                contained += rollups
        await self._standings.settle(contained)
        for score in await self._standings.unpublished():
            await self._publish(score)
        return False

    async def _renew(self, key: _Key) -> bool:
        """Whether the stored standing contains what is pending; False when another writer came between."""
        # read before the rollups: then a standing that is still the same afterwards has missed none of them
        before = await self._standings.standing(*key)
        after = standing_of(key, await self._standings.latest(*key), before, self._now())
        if after is None:
            return True
        return await self._standings.replace(after)

    async def _publish(self, score: RoutingScore) -> None:
        _, key, value = routing_event(score)
        await self._sender.send(ROUTING_SCORE_UPDATED, key.encode(), value)
        await self._standings.published(score)


def standing_of(
    key: _Key, latest: Sequence[Document], before: RoutingScore | None, now: datetime
) -> RoutingScore | None:
    """The standing the latest rollups add up to; None when it says nothing new."""
    counted = [rollup for rollup in latest if rollup["lines"]]
    if not counted:
        return None
    lines = sum(rollup["lines"] for rollup in counted)
    org_id, provider, model = key
    after = RoutingScore(
        org_id=org_id,
        provider=provider,
        model=model,
        version=1 if before is None else before.version + 1,
        scorer_version=counted[0]["scorer_version"],
        quality=min(1.0, round(sum(rollup["quality_sum"] for rollup in counted) / lines, 4)),
        lines=lines,
        segments=len(counted),
        updated_at=now,
    )
    unchanged = {"version": after.version, "updated_at": now}
    return None if before is not None and before.model_copy(update=unchanged) == after else after
