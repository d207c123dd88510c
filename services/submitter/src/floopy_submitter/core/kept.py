"""Small inputs as they were planned a moment ago, for whoever submits them: bytes that never change.

Only what is kept is not read again; whatever is not, because another process planned it or too much else is
kept, is read from the database.
"""

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from floopy_common.domain.index import INPUT_ENTRY_BYTES
from floopy_submitter.core.cutting import Segment

SMALL = 1024 * 1024
"""Bytes of an input, or of a shard, that many of may be in memory at once."""
_MOST = 16 * 1024 * 1024
"""Bytes that are kept at most."""
_FOR = 30.0
"""Seconds that something is kept at most; what is not submitted by then waits for something."""


class Copy:
    """What a planner read and made of an input, while that is small."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._rows: list[bytes] = []
        self._length = 0

    def add(self, piece: bytes, rows: bytes) -> None:
        """A piece of the input, and the index rows it gave."""
        self._length += len(piece)
        if self._length > SMALL:
            self._pieces, self._rows = [], []
        else:
            self._pieces.append(piece)
            self._rows.append(rows)

    def done(self, segments: Sequence[Segment]) -> "KeptInput | None":
        """The whole, unless it is large."""
        if self._length > SMALL:
            return None
        places = {
            segment.no: (segment.index_from, segment.index_from + segment.lines) for segment in segments
        }
        return KeptInput(b"".join(self._pieces), b"".join(self._rows), places)


@dataclass(frozen=True)
class KeptInput:
    """Read like the stores: an input, its line index, and which of its entries each segment has."""

    data: bytes
    index: bytes
    places: Mapping[int, tuple[int, int]]

    @property
    def size(self) -> int:
        return len(self.data) + len(self.index)

    async def read(self, index_blob: str, batch_id: str, plan_id: str, segments: Iterable[int]) -> bytes:
        """The packed index from the first to the last of `segments`."""
        places = [self.places[segment] for segment in segments]
        first, last = min(place[0] for place in places), max(place[1] for place in places)
        return self.index[first * INPUT_ENTRY_BYTES : last * INPUT_ENTRY_BYTES]

    async def read_ranges(
        self, ranges: Iterable[Mapping[str, Any]], offset: int = 0, length: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The input's bytes from `offset`, at most `length` of them."""
        yield self.data[offset : None if length is None else offset + length]


@dataclass
class _Entry:
    kept: KeptInput
    shards: int
    until: float


class KeptInputs:
    """By plan, until each of its shards is submitted, or too long has gone by."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._entries: dict[str, _Entry] = {}
        self._size = 0

    def keep(self, plan_id: str, kept: KeptInput, shards: int) -> None:
        """Unless there is no room: those kept longest are those that are submitted next."""
        now = self._monotonic()
        for old in [name for name, entry in self._entries.items() if entry.until <= now]:
            self._drop(old)
        if self._size + kept.size <= _MOST:
            self._entries[plan_id] = _Entry(kept, shards, now + _FOR)
            self._size += kept.size

    def of(self, plan_id: str) -> KeptInput | None:
        entry = self._entries.get(plan_id)
        return None if entry is None else entry.kept

    def submitted(self, plan_id: str) -> None:
        """One of the plan's shards is submitted."""
        entry = self._entries.get(plan_id)
        if entry is not None:
            entry.shards -= 1
            if entry.shards <= 0:
                self._drop(plan_id)

    def _drop(self, plan_id: str) -> None:
        self._size -= self._entries.pop(plan_id).kept.size
