"""Which ended provider batch is collected next: each as soon as there is room, accounts in turn."""

from dataclasses import dataclass
from functools import partial

from floopy_common.providers.port import BatchProvider
from floopy_reconciler.core.look import Look
from floopy_reconciler.core.pool import Pool
from floopy_reconciler.core.ready import is_small
from floopy_reconciler.core.settle import Settler, is_refusal
from floopy_reconciler.ports import CollectReports, Document

_MOST_WAITING = 5_000
"""Shards in a queue, accounts sharing alike: some 10 MB."""
_KEPT = ("_id", "account_id", "batch_id", "provider_batch_id", "lease")
"""What collecting needs of a shard; all of it would be large where a retry has scattered lines."""


@dataclass(frozen=True)
class _Ended:
    shard: Document
    look: Look
    provider: BatchProvider


class _Queue:
    """Shards that wait for room in a pool, by account and id."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._accounts: dict[str, dict[str, _Ended]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._accounts.values()))

    def add(self, ended: _Ended) -> None:
        """One that waits already keeps its place, and the newer look counts; one too many is left out."""
        shard_id, account_id = ended.shard["_id"], ended.shard["account_id"]
        waiting = self._accounts.setdefault(account_id, {})
        if shard_id in waiting or len(waiting) < max(1, _MOST_WAITING // len(self._accounts)):
            waiting[shard_id] = ended

    def take(self) -> _Ended | None:
        """The next that fits, of the account with the fewest jobs; of several the one that waited longest."""
        if self.pool.free <= 0:  # as a rule, and there may be thousands of accounts
            return None
        fitting = [account_id for account_id in self._accounts if self.pool.has_room_for(account_id)]
        if not fitting:
            return None
        account_id = min(fitting, key=self.pool.jobs_of)
        waiting = self._accounts.pop(account_id)
        ended = waiting.pop(next(iter(waiting)))
        if waiting:
            self._accounts[account_id] = waiting
        return ended


class Collector:
    """Starts collecting what ended provider batches left, as far as there is room.

    What waits is in memory only: a later look comes back to what a crash, a failure of the database or too
    long a queue loses of it.
    """

    def __init__(self, settler: Settler, downloads: Pool, small: Pool, reports: CollectReports) -> None:
        """`small`: for the small shards, and for those whose provider batch was refused."""
        self._settler = settler
        self._reports = reports
        self._small = small
        self._queues = {False: _Queue(downloads), True: _Queue(small)}
        for queue in self._queues.values():
            queue.pool.when_free(partial(self._start, queue))

    def room_for(self, account_id: str, *, small: bool) -> int:
        """How many small or other shards of the account may be collected besides those that are."""
        return self._queues[small].pool.room_for(account_id)

    def collect(self, shard: Document, look: Look, provider: BatchProvider) -> None:
        """Now, or when there is room; a refusal now, or by a later look, since the newest says why."""
        if is_refusal(look):
            if self._small.has_room_for(shard["account_id"]):
                self._begin(self._small, _Ended(shard, look, provider))
            return
        queue = self._queues[is_small(shard)]
        queue.add(_Ended({name: shard.get(name) for name in _KEPT}, look, provider))
        self._start(queue)

    def _start(self, queue: _Queue) -> None:
        while (ended := queue.take()) is not None:
            self._begin(queue.pool, ended)
        self._reports.waiting(sum(map(len, self._queues.values())))

    def _begin(self, pool: Pool, ended: _Ended) -> None:
        job = self._settler.settle(ended.shard, ended.look, ended.provider)
        pool.start(ended.shard["account_id"], job)
