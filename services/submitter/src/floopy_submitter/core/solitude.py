"""What its last workers did not outlive is worked on alone, so that nothing is left behind with it again.

A worker that dies leaves everything it had in hand, and nothing tells what killed it from what merely was
beside it. Worked on alone, the innocent are done; only what is to blame goes on counting deaths.
"""

import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from floopy_submitter.core.slots import Slots
from floopy_submitter.ports import Document

_log = logging.getLogger(__name__)

Job = tuple[str, Coroutine[Any, Any, None]]
"""An account or organisation, and the work on something of its that was claimed."""


@dataclass
class _Kind:
    slots: Sequence[Slots]
    wake: Callable[[], None]
    beginning: int = 0
    has_begun: bool = False


@dataclass
class Solitude:
    """Has the work of some kinds end, and none begin, while something is to be worked on alone."""

    wake: Callable[[], None]
    """Called when who waits to be alone may ask again."""
    _kinds: dict[str, _Kind] = field(default_factory=dict)
    _kept_away: Sequence[str] = ()
    _is_awaited: bool = False

    def join(self, kind: str, slots: Sequence[Slots], wake: Callable[[], None]) -> None:
        """There is work of this kind, done in these slots; `wake` is called when it may begin again."""
        self._kinds[kind] = _Kind(slots, wake)

    @contextmanager
    def beginning(self, kind: str) -> Iterator[bool]:
        """Around a step that begins work of a kind; false when none may begin now."""
        own = self._kinds[kind]
        if kind in self._kept_away:
            if self._is_alone:
                self.wake()
            yield False
            return
        own.beginning += 1
        try:
            yield True
        finally:
            own.beginning -= 1
            own.has_begun = True
            if self._is_awaited:
                self.wake()

    def enter(self, kinds: Sequence[str]) -> bool:
        """Whether no work of these kinds is under way; none begins from now on, until `leave`.

        Not before each kind has had a step since somebody was last alone.
        """
        self._is_awaited = True
        if not all(kind.has_begun for kind in self._kinds.values()):
            return False
        self._kept_away = [kind for kind in kinds if kind in self._kinds]
        return self._is_alone

    def leave(self) -> None:
        """What was kept away may begin."""
        was_closed, self._kept_away, self._is_awaited = bool(self._kept_away), (), False
        if not was_closed:
            return
        for kind in self._kinds.values():
            kind.has_begun = False
            kind.wake()

    @property
    def _is_alone(self) -> bool:
        kept = [self._kinds[name] for name in self._kept_away]
        return not any(kind.beginning or any(slots.is_busy for slots in kind.slots) for kind in kept)


class Deadly(Protocol):
    """Work of one kind that may have killed who did it."""

    @property
    def not_beside(self) -> Sequence[str]:
        """Kinds of work that are not to be under way meanwhile."""

    async def left_behind(self) -> Document | None:
        """What comes next."""

    async def begin_alone(self, found: Document) -> Job | None:
        """Claim it; None when another worker did, or it is not to be worked on now."""


class Survivors:
    """Finds what workers have left behind when they died, and has it done piece by piece."""

    def __init__(self, *, solitude: Solitude, kinds: Sequence[Deadly]) -> None:
        """Kinds take turns."""
        self.slots = Slots(1, self._ended)
        self._solitude = solitude
        self._kinds = list(kinds)

    async def step(self) -> bool:
        """Begin with the next, once it would be alone; True when another worker was quicker."""
        if self.slots.is_busy:
            return False
        kind, found = await self._next()
        if kind is None or found is None:
            self._solitude.leave()
            return False
        if not self._solitude.enter(kind.not_beside):
            return False
        job = await self._begin(kind, found)
        if job is None:
            self._solitude.leave()
            return True
        _log.info("worked on alone", extra={"event": "worked_on_alone", "document": found["_id"]})
        self.slots.start(*job)
        # the others come first next time
        self._kinds.remove(kind)
        self._kinds.append(kind)
        return False

    async def _next(self) -> tuple[Deadly | None, Document | None]:
        for kind in self._kinds:
            if (found := await kind.left_behind()) is not None:
                return kind, found
        return None, None

    async def _begin(self, kind: Deadly, found: Document) -> Job | None:
        try:
            return await kind.begin_alone(found)
        except BaseException:
            self._solitude.leave()
            raise

    def _ended(self) -> None:
        self._solitude.leave()
        self._solitude.wake()
