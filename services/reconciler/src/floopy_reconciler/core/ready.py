"""Segments that this process has just offered to the writer, so that it need not search for them."""

from collections import deque
from collections.abc import Sequence

from floopy_reconciler.ports import Document

_SMALL_LINES = 100
_SMALL_BYTES = 256 * 1024


def is_small(piece: Document) -> bool:
    """Whether work on a segment or a shard {lines, bytes} is mostly waiting, and takes little memory."""
    return bool(piece["lines"] <= _SMALL_LINES and piece["bytes"] <= _SMALL_BYTES)


class ReadySegments:
    """Ids of segments in order of their offering, batches in turn, small ones apart from large ones.

    It is in memory only: what a crash loses of it, and what others have offered, a search finds.
    """

    def __init__(self) -> None:
        self._batches: dict[bool, dict[str, deque[str]]] = {True: {}, False: {}}

    def offer(self, batch_id: str, segments: Sequence[Document]) -> None:
        """Segments as {_id, lines, bytes}."""
        for segment in segments:
            waiting = self._batches[is_small(segment)]
            waiting.setdefault(batch_id, deque()).append(segment["_id"])

    def take(self, limit: int, *, small: bool) -> list[tuple[str, str]]:
        """At most `limit` as (batch id, segment id), one of each batch before a second of any."""
        waiting = self._batches[small]
        taken: list[tuple[str, str]] = []
        while waiting and len(taken) < limit:
            batch_id, ids = next(iter(waiting.items()))
            taken.append((batch_id, ids.popleft()))
            del waiting[batch_id]
            if ids:
                waiting[batch_id] = ids
        return taken

    def has(self, *, small: bool) -> bool:
        """Whether there is one to take."""
        return bool(self._batches[small])
