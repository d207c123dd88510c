"""A segment with its stored bytes at hand, rendered as often as it takes, and the events that come of it."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, Self

from floopy_reconciler.core.emit import bundled, size_of
from floopy_reconciler.core.jobs import Job, Stored, Take
from floopy_reconciler.core.line_events import Facts
from floopy_reconciler.core.parts import Part
from floopy_reconciler.core.render import PartIds, Piece, Tally
from floopy_reconciler.ports import Document, Record


class Room:
    """Bytes that the backlogs of all segments in hand may hold together."""

    def __init__(self, size: int) -> None:
        self.left = size


class Backlog:
    """Events waiting for the manifest to be durable; `records` is None when there was no room for them.

    A context, which gives its room back.
    """

    def __init__(self, room: Room) -> None:
        self.records: list[Record] | None = []
        self._room = room
        self._size = 0

    def add(self, events: list[Record]) -> None:
        if self.records is None:
            return
        size = size_of(events)
        if size > self._room.left:
            self._let_go()
            return
        self._room.left -= size
        self._size += size
        self.records += events

    def _let_go(self) -> None:
        self.records = None
        self._room.left += self._size
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._let_go()


class SegmentRenderer(Protocol):
    """Renders one segment: here, or in a process of its own."""

    async def render(self, job: Job, take: Take) -> Tally:
        """One pass. Raises one of `FAILURES` where the segment cannot be rendered, and what `take` raises."""
        ...


class Here:
    """Renders in this very process; `turn` is had by one segment at a time."""

    def __init__(self, turn: AbstractAsyncContextManager[object]) -> None:
        self._turn = turn

    async def render(self, job: Job, take: Take) -> Tally:
        """One pass; the event loop turns between two pieces."""
        renderer = job.renderer()
        async with self._turn:
            for piece in renderer.pieces():
                await take(piece)
                await asyncio.sleep(0)
        return renderer.tally


@dataclass(frozen=True)
class Rendering:
    """What rendering a segment needs, so that it can be done once more."""

    facts: Facts
    sources: Sequence[Document]
    stored: Stored
    renders: SegmentRenderer

    async def run(self, output: Part, error: Part, backlog: Backlog) -> Tally:
        async def take(piece: Piece) -> None:
            await output.write(piece.output)
            await error.write(piece.error)
            backlog.add(piece.events)

        return await self.renders.render(self._job(PartIds(output.id, error.id)), take)

    def bundles(self, parts: PartIds) -> Iterable[list[Record]]:
        """The events once more, in lists worth a call; rendered here, at the pace in which they are sent."""
        return bundled(self._job(parts).renderer().pieces())

    def _job(self, parts: PartIds) -> Job:
        return Job(self.facts, self.sources, self.stored, parts)
