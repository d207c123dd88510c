"""Which ended provider batch is collected next: each as soon as there is room, in the order of their ends."""

from dataclasses import dataclass

from floopy_common.providers.port import BatchProvider
from floopy_reconciler.core.look import Look
from floopy_reconciler.core.pool import Pool
from floopy_reconciler.core.ready import is_small
from floopy_reconciler.core.settle import Settler
from floopy_reconciler.ports import Document

_MOST_WAITING = 1_000
"""Shards of one kind."""
_MOST_RANGES = 1_000
"""Of a shard that waits: a retry shard of scattered lines is a large document."""


@dataclass(frozen=True)
class _Ended:
    shard: Document
    look: Look
    provider: BatchProvider


class _Queue:
    """Shards of one kind that wait for room in their pool, by id."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._waiting: dict[str, _Ended] = {}

    def add(self, ended: _Ended) -> None:
        """A shard that waits already keeps its place; the newer look counts."""
        self._waiting[ended.shard["_id"]] = ended

    def take(self) -> _Ended | None:
        """The first of those for whose account there is room."""
        if self.pool.free <= 0:
            return None
        for shard_id, ended in self._waiting.items():
            if self.pool.has_room_for(ended.shard["account_id"]):
                return self._waiting.pop(shard_id)
        return None

    def trim(self, shard: Document) -> None:
        """Forget a shard that there is no room to remember."""
        if len(self._waiting) > _MOST_WAITING or len(shard["ranges"]) > _MOST_RANGES:
            self._waiting.pop(shard["_id"], None)


class Collector:
    """Starts collecting what ended provider batches left, as far as there is room.

    What waits is in memory only: a later look comes back to what a crash, or too long a queue, loses of it.
    """

    def __init__(self, settler: Settler, downloads: Pool, small: Pool) -> None:
        """`small`: for the small shards."""
        self._settler = settler
        self._queues = {False: _Queue(downloads), True: _Queue(small)}

    def room_for(self, account_id: str, *, small: bool) -> int:
        """How many small or other shards of the account may be collected besides those that are."""
        return self._queues[small].pool.room_for(account_id)

    def collect(self, shard: Document, look: Look, provider: BatchProvider) -> None:
        """Now, or when there is room."""
        queue = self._queues[is_small(shard)]
        queue.add(_Ended(shard, look, provider))
        self._start(queue)
        queue.trim(shard)

    def go_on(self) -> None:
        """Collect what has waited and fits by now."""
        for queue in self._queues.values():
            self._start(queue)

    def _start(self, queue: _Queue) -> None:
        while (ended := queue.take()) is not None:
            job = self._settler.settle(ended.shard, ended.look, ended.provider)
            queue.pool.start(ended.shard["account_id"], job)
