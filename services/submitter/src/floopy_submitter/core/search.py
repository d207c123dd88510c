"""Searching: what is asked of a provider about an attempt whose create nobody saw the end of."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from floopy_common.providers.port import BatchProvider, Found, Sought
from floopy_submitter.ports import AttachedBatches, Document, Orphans


@dataclass(frozen=True)
class SearchTimes:
    """Seconds: a create ends within `create_timeout` and its lease `margin` later; clocks differ by
    `clock_skew`.
    """

    create_timeout: float
    margin: float
    clock_skew: float


class Search:
    """Looks for attempts among the provider batches that belong to nobody yet."""

    def __init__(self, *, shards: AttachedBatches, orphans: Orphans, times: SearchTimes) -> None:
        self._shards = shards
        self._orphans = orphans
        self._times = times

    async def look(self, provider: BatchProvider, shard: Document, attempt: Document) -> Found:
        """Raises Unavailable when the provider's list could not be read."""

        async def taken(provider_batch_ids: Collection[str]) -> set[str]:
            return await self._taken(shard, provider_batch_ids)

        times = self._times
        fenced = attempt["creating_at"] or attempt["intent_at"]
        skew = timedelta(seconds=times.clock_skew)
        found = await provider.find_attempt(
            Sought(
                attempt_id=attempt["id"],
                nonce=attempt["nonce"],
                input_file_id=attempt["input_file_id"],
                lines=shard["lines"],
                since=fenced - skew,
                until=fenced + timedelta(seconds=times.create_timeout + times.margin) + skew,
                taken=taken,
            )
        )
        seen = {batch.id for batch in [*found.ours, *found.possible]}
        free = seen - await self._taken(shard, seen)
        return Found(
            [batch for batch in found.ours if batch.id in free],
            [batch for batch in found.possible if batch.id in free],
        )

    async def _taken(self, shard: Document, provider_batch_ids: Collection[str]) -> set[str]:
        """Attached to a shard, decided against, or known from their results to be somebody else's."""
        if not provider_batch_ids:
            return set()
        orphaned = await self._orphans.known(shard["account_id"], provider_batch_ids)
        attached = await self._shards.attached(provider_batch_ids)
        return orphaned | attached | (set(shard.get("foreign") or ()) & set(provider_batch_ids))
