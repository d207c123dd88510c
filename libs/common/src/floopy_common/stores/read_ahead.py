"""How much of a file is read at once: little for a slow reader, and ahead of the few quickest ones."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import TypeVar

READ_BATCH = 1024 * 1024
"""Bytes asked of the database at once: what a slow reader holds."""

QUICK_BATCH = 4 * 1024 * 1024
"""The same for a quick reader, of which it holds two: more is no faster."""

QUICK_BYTES = 32 * 1024 * 1024
"""Bytes a second from which on a reader is quick: what a process sends is enough for a few of them only."""

UNTOLD_BYTES = 16 * 1024 * 1024
"""What is to be taken quickly first: the sockets on the way may take as much in their reader's stead."""

QUICK_READERS = 4
"""So many keep every core busy, and what one holds when it suddenly stops stays small in all."""

_T = TypeVar("_T")


class QuickSeats:
    """The quick readers of a process: at most so many, whoever comes later is served as the slow ones are."""

    def __init__(self, readers: int = QUICK_READERS) -> None:
        self._free = readers

    def take(self) -> bool:
        """False when none is free."""
        if self._free == 0:
            return False
        self._free -= 1
        return True

    def leave(self) -> None:
        self._free += 1


class Pace:
    """Of one reader; without seats it stays as it is."""

    def __init__(self, batch_bytes: int = READ_BATCH, seats: QuickSeats | None = None) -> None:
        self.quick = False
        """Whether more is read at once, and the next batch while one is being taken."""
        self._batch_bytes = batch_bytes
        self._seats = seats
        self._size = 0
        self._seconds = 0.0
        self._quickly = 0

    @property
    def batch_bytes(self) -> int:
        """How much to read at once."""
        return QUICK_BATCH if self.quick else self._batch_bytes

    def taken(self, size: int, seconds: float) -> None:
        """`size` bytes were handed out, and after `seconds` the reader came back for more."""
        if self._seats is None:
            return
        self._size += size
        self._seconds += seconds
        expected = self._seconds * QUICK_BYTES
        if max(self._size, expected) < QUICK_BATCH:
            return
        self._quickly = self._quickly + self._size if self._size >= expected else 0
        self._size, self._seconds = 0, 0.0
        if self.quick and not self._quickly:
            self.settle(self._seats)
        elif not self.quick and self._quickly >= UNTOLD_BYTES:
            self.quick = self._seats.take()

    def settle(self, seats: QuickSeats) -> None:
        """Be slow, from now on or because all is read."""
        if self.quick:
            self.quick = False
            seats.leave()


@contextmanager
def pace_among(seats: QuickSeats | None, batch_bytes: int = READ_BATCH) -> Iterator[Pace]:
    """The pace of one reader while it reads."""
    pace = Pace(batch_bytes, seats)
    try:
        yield pace
    finally:
        if seats is not None:
            pace.settle(seats)


async def in_batches(
    documents: AsyncGenerator[_T, None], count: int, *, ahead: bool
) -> AsyncGenerator[list[_T], None]:
    """Lists of `count`, the last may be shorter; `ahead`: one is fetched while the one before is worked on.

    Raises what `documents` raises, after what came before it.
    """
    async with aclosing(documents):
        batch = await _take(documents, count)
        while batch and not ahead:
            yield batch
            batch = await _take(documents, count)
        while batch:
            following = asyncio.create_task(_take(documents, count))
            try:
                await asyncio.sleep(0)  # it is on its way before the work begins
                yield batch
                await asyncio.wait({following})  # cancelling this cancels no fetch
                batch = following.result()
            finally:
                # never cancelled: a thread has the cursor meanwhile, and nobody may close it under its hands
                await asyncio.wait({following})
                following.exception()


async def _take(documents: AsyncGenerator[_T, None], count: int) -> list[_T]:
    taken: list[_T] = []
    async for document in documents:
        taken.append(document)
        if len(taken) == count:
            break
    return taken
