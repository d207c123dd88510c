"""Batches that wait for their plans: organisations take turns, many small ones are planned side by side.

One that a planner has left behind is planned when no other is (`solitude.py`): what kills its planners is
refused in the end, and nothing else with it.
"""

import asyncio
from collections.abc import Iterator, Sequence

from floopy_submitter.core.kept import SMALL
from floopy_submitter.core.planner import Planner
from floopy_submitter.core.slots import Slots
from floopy_submitter.core.solitude import Job, Solitude
from floopy_submitter.ports import Document, Now, PlanQueue, PlanStore

PLANNING = "planning"
"""The kind of work, to whom something is to be alone."""


class Planning:
    """Finds batches, claims them and has them planned; small ones need not wait for large ones."""

    not_beside = (PLANNING,)

    def __init__(
        self, *, store: PlanStore, planner: Planner, small: Slots, large: Slots, solitude: Solitude, now: Now
    ) -> None:
        """`small` and `large`: for inputs up to, and of more than, `SMALL` bytes."""
        self._store = store
        self._solitude = solitude
        self._planner = planner
        self._small = small
        self._large = large
        self._now = now
        self._last_org = {False: "", True: ""}

    async def step(self) -> bool:
        """Start what waits and fits; True when another worker was quicker, so that more may wait."""
        with self._solitude.beginning(PLANNING) as may_begin:
            return may_begin and await self._step()

    async def left_behind(self) -> Document | None:
        """A batch whose planner is gone."""
        return await self._store.left_behind()

    async def begin_alone(self, found: Document) -> Job | None:
        claim = await self._store.claim(found["_id"], self._now(), left=True)
        return None if claim is None else (found["org_id"], self._planner.plan(claim))

    async def _step(self) -> bool:
        small, large = await asyncio.gather(
            self._next(self._small, large=False), self._next(self._large, large=True)
        )
        claimed = await asyncio.gather(
            *(self._claim(self._small, *turn) for turn in small),
            *(self._claim(self._large, *turn) for turn in large),
        )
        return not all(claimed)

    async def _next(self, slots: Slots, *, large: bool) -> list[tuple[str, str]]:
        """Organisation and id of what comes next; large inputs have turns of their own."""
        free = slots.free
        if not free:
            return []
        queues = await self._store.waiting(self._last_org[large], free, bound=SMALL, large=large)
        turns = in_turns(queues, free)
        self._last_org[large] = next((org_id for org_id, _ in reversed(turns)), "")
        return turns

    async def _claim(self, slots: Slots, org_id: str, batch_id: str) -> bool:
        claim = await self._store.claim(batch_id, self._now())
        if claim is not None:
            slots.start(org_id, self._planner.plan(claim))
        return claim is not None


def in_turns(queues: Sequence[PlanQueue], room: int) -> list[tuple[str, str]]:
    """Organisation and id of `room` batches: of each queue its first, then of each its second, and so on."""
    return [turn for turn, _ in zip(_turns(queues), range(room), strict=False)]


def _turns(queues: Sequence[PlanQueue]) -> Iterator[tuple[str, str]]:
    for place in range(max((len(queue.batch_ids) for queue in queues), default=0)):
        for queue in queues:
            if place < len(queue.batch_ids):
                yield queue.org_id, queue.batch_ids[place]
