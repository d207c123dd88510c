"""After the end: uploaded inputs go at once, content when its retention is over and the audit is closed."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from floopy_common.domain.batch import BatchStatus, timestamp_field
from floopy_common.domain.shard import ShardEnd, ShardState
from floopy_common.providers.port import AccountMissing, ProviderDirectory, ProviderError
from floopy_reconciler.core.agenda import side_by_side
from floopy_reconciler.ports import Document, EndedBatches, EndingShards, Now

_log = logging.getLogger(__name__)

INPUTS, CONTENT, DONE = "inputs", "content", "done"
_AUDITED = "closed"
_BATCHES = 32
"""Batches cleaned up together, which share what a call costs."""
_DELETES = 8
"""Batches whose uploads are deleted at the same time: providers bound how much they are asked."""
_UNSUBMITTED = frozenset({ShardState.PLANNED.value, ShardState.WAITING.value})


@dataclass(frozen=True)
class CleanupTimes:
    """Seconds content is kept, a provider is asked to delete an input, and between two tries."""

    retention: float
    patience: float
    interval: float


class Cleanup:
    """Removes what an ended batch no longer needs; every step may be repeated."""

    def __init__(
        self,
        *,
        ended: EndedBatches,
        shards: EndingShards,
        providers: ProviderDirectory,
        times: CleanupTimes,
        now: Now,
    ) -> None:
        self._ended = ended
        self._shards = shards
        self._providers = providers
        self._times = times
        self._now = now

    async def step(self) -> bool:
        """The ended batches longest due, some at a time; whether there may be more."""
        due = await self._ended.due(_BATCHES)
        if due and await self._ended.take(due, self._times.interval):
            fresh = [batch for batch in due if stage_of(batch) == INPUTS]
            works = [self._drop_content(batch) for batch in due if stage_of(batch) != INPUTS]
            await side_by_side([*works, *([self._drop_inputs(fresh)] if fresh else [])])
        return len(due) == _BATCHES

    async def _drop_inputs(self, batches: Sequence[Document]) -> None:
        inputs = await self._inputs_of(batches)
        turn = asyncio.Semaphore(_DELETES)
        rest: dict[str, float | None] = {}

        async def drop(batch: Document) -> None:
            async with turn:
                left = await self._delete_all(inputs.get(batch["_id"], []))
            since = (self._now() - ended_at(batch)).total_seconds()
            if left and since < self._times.patience:
                return
            if left:
                _log.warning(
                    "uploaded inputs stay at the provider",
                    extra={"event": "inputs_left", "batch_id": batch["_id"], "files": left},
                )
            rest[batch["_id"]] = max(0.0, self._times.retention - since)

        try:
            await side_by_side(drop(batch) for batch in batches)
        finally:
            await self._ended.rest(CONTENT, rest)

    async def _inputs_of(self, batches: Sequence[Document]) -> dict[str, list[tuple[str, str]]]:
        """(account id, file id) of what each batch has uploaded to providers, no shard needing it any more.

        A retry shard that a worker inserted while its batch ended is nobody's any more, and is ended first.
        """
        shards = await self._ended.shards_of([batch["_id"] for batch in batches])
        plans = {batch["_id"]: batch["plan"]["plan_id"] for batch in batches if batch.get("plan")}
        unsubmitted = {
            shard["batch_id"]
            for shard in shards
            if shard["state"] in _UNSUBMITTED and shard["plan_id"] == plans.get(shard["batch_id"])
        }
        if unsubmitted:
            await side_by_side(self._end_unsubmitted(batch_id, plans[batch_id]) for batch_id in unsubmitted)
            shards = await self._ended.shards_of([batch["_id"] for batch in batches])
        inputs: dict[str, list[tuple[str, str]]] = {}
        for shard in shards:
            if ShardState(shard["state"]).is_terminal:
                found = [attempt.get("input_file_id") for attempt in shard.get("attempts", [])]
                inputs.setdefault(shard["batch_id"], []).extend((shard["account_id"], f) for f in found if f)
        return inputs

    async def _end_unsubmitted(self, batch_id: str, plan_id: str) -> None:
        await self._shards.end_unsubmitted(batch_id, plan_id, ShardEnd.CANCELLED)

    async def _delete_all(self, inputs: Sequence[tuple[str, str]]) -> int:
        """How many could not be deleted."""
        left = 0
        for account_id, file_id in inputs:
            try:
                provider = await self._providers.for_account(account_id)
                await provider.delete_input(file_id)
            except (ProviderError, AccountMissing) as error:
                left += 1
                _log.info(
                    "an uploaded input was not deleted",
                    extra={"event": "input_not_deleted", "account_id": account_id, "cause": str(error)},
                )
        return left

    async def _drop_content(self, batch: Document) -> None:
        over_at = ended_at(batch) + timedelta(seconds=self._times.retention)
        if self._now() < over_at or batch["audit"]["stage"] != _AUDITED:
            return
        await self._ended.drop_content(batch["_id"])
        await self._ended.rest(DONE, {batch["_id"]: None})
        _log.info("content dropped", extra={"event": "content_dropped", "batch_id": batch["_id"]})


def stage_of(batch: Document) -> str:
    """A batch that another service ended has no stage yet."""
    return str((batch.get("cleanup") or {}).get("stage") or INPUTS)


def ended_at(batch: Document) -> datetime:
    """When the batch became terminal."""
    at = batch[timestamp_field(BatchStatus(batch["status"])) or "created_at"]
    if not isinstance(at, datetime):
        raise TypeError(f"batch {batch['_id']} has no time of its end")
    return at
