"""After the end: uploaded inputs go at once, content when its retention is over and the audit is closed."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from floopy_common.domain.batch import BatchStatus, timestamp_field
from floopy_common.domain.shard import ShardEnd
from floopy_common.providers.port import AccountMissing, ProviderDirectory, ProviderError
from floopy_reconciler.core.agenda import AT_ONCE, side_by_side
from floopy_reconciler.ports import AttemptInputs, Document, EndedBatches, EndingShards, Now

_log = logging.getLogger(__name__)

INPUTS, CONTENT, DONE = "inputs", "content", "done"
_AUDITED = "closed"


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
        inputs: AttemptInputs,
        shards: EndingShards,
        providers: ProviderDirectory,
        times: CleanupTimes,
        now: Now,
    ) -> None:
        self._ended = ended
        self._inputs = inputs
        self._shards = shards
        self._providers = providers
        self._times = times
        self._now = now

    async def step(self) -> bool:
        """Some ended batches; False when none is due."""
        batches: list[Document] = []
        while len(batches) < AT_ONCE and (batch := await self._ended.take(self._times.interval)) is not None:
            batches.append(batch)
        await side_by_side(self._clean_up(batch) for batch in batches)
        return bool(batches)

    async def _clean_up(self, batch: Document) -> None:
        if stage_of(batch) == INPUTS:
            await self._drop_inputs(batch)
        else:
            await self._drop_content(batch)

    async def _drop_inputs(self, batch: Document) -> None:
        if batch["plan"] is not None:
            # a retry shard that a worker inserted while its batch ended is nobody's any more
            await self._shards.end_unsubmitted(batch["_id"], batch["plan"]["plan_id"], ShardEnd.CANCELLED)
        since = (self._now() - ended_at(batch)).total_seconds()
        left = await self._delete_all(await self._inputs.leftovers(batch["_id"]))
        if left and since < self._times.patience:
            return
        if left:
            _log.warning(
                "uploaded inputs stay at the provider",
                extra={"event": "inputs_left", "batch_id": batch["_id"], "files": left},
            )
        await self._ended.rest(batch["_id"], CONTENT, max(0.0, self._times.retention - since))

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
        await self._ended.rest(batch["_id"], DONE, None)
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
