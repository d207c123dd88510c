"""A segment with its stored bytes at hand, rendered as often as it takes, and the events that come of it."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Self

from floopy_reconciler.core.emit import bundled, size_of
from floopy_reconciler.core.line_events import Facts
from floopy_reconciler.core.parts import Part
from floopy_reconciler.core.render import Material, PartIds, Renderer, Tally
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


@dataclass(frozen=True)
class Rendering:
    """What rendering a segment needs, so that it can be done once more; one at a time has its `turn`."""

    facts: Facts
    sources: Sequence[Document]
    material: Material
    turn: AbstractAsyncContextManager[None]

    async def run(self, output: Part, error: Part, backlog: Backlog) -> Tally:
        """One pass; the event loop turns between two pieces."""
        renderer = self._renderer(PartIds(output.id, error.id))
        async with self.turn:
            for piece in renderer.pieces():
                await output.write(piece.output)
                await error.write(piece.error)
                backlog.add(piece.events)
                await asyncio.sleep(0)
        return renderer.tally

    def bundles(self, parts: PartIds) -> Iterable[list[Record]]:
        """The events once more, in lists worth a call."""
        return bundled(self._renderer(parts).pieces())

    def _renderer(self, parts: PartIds) -> Renderer:
        return Renderer(self.facts, self.sources, self.material, parts)
