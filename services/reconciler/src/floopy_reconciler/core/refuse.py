"""A provider batch that failed before anything ran: back into the queue, or refused with the user's lines."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from floopy_common.providers.port import BatchFault
from floopy_reconciler.core.lines import lines_of
from floopy_reconciler.core.look import Look
from floopy_reconciler.ports import Batches, Document, LineIndexes, SettlingStore

_log = logging.getLogger(__name__)

MAX_ERRORS = 100
"""As many as OpenAI lists."""
_QUEUE_FULL = frozenset({"token_limit_exceeded", "request_limit_exceeded"})
_SILENT = BatchFault(code="provider_failed", message="The provider failed this input without saying why.")


@dataclass(frozen=True)
class Backoff:
    """Seconds to stand in line again: doubling from `shortest` up to `longest`."""

    shortest: float
    longest: float

    def after(self, refusals: int) -> float:
        return min(self.shortest * 2.0 ** min(refusals - 1, 20), self.longest)


class Refuser:
    """Decides what becomes of a shard whose provider batch failed as a whole."""

    def __init__(
        self,
        *,
        shards: SettlingStore,
        batches: Batches,
        lines: LineIndexes,
        backoff: Backoff,
        fail_when_full: bool,
    ) -> None:
        """`fail_when_full`: a shard that the provider had no room for is refused instead of tried again."""
        self._fail_when_full = fail_when_full
        self._shards = shards
        self._batches = batches
        self._lines = lines
        self._backoff = backoff

    async def refuse(self, shard: Document, look: Look) -> bool:
        """True when the shard is refused for good."""
        if is_queue_full(look.errors) and not self._fail_when_full:
            refusals = (shard.get("queue_refusals") or 0) + 1
            await self._shards.requeue(shard, self._backoff.after(refusals), refusals)
            return False
        batch = await self._batches.get(shard["batch_id"])
        if batch is None:
            return False
        packed = await self._lines.read(
            batch["plan"]["index_blob"], batch["_id"], shard["plan_id"], shard["segments"]
        )
        refused = await self._shards.refuse(shard, refusal(look.errors, lines_of(shard, packed)))
        if refused:
            _log.warning(
                "the provider refused an input",
                extra={"event": "shard_refused", "shard_id": shard["_id"], "faults": len(look.errors)},
            )
        return refused


def is_queue_full(faults: Iterable[BatchFault]) -> bool:
    """Whether the provider had no room for the batch, which says nothing about its lines."""
    return any(
        fault.code in _QUEUE_FULL or (fault.message or "").lower().startswith("enqueued ") for fault in faults
    )


def refusal(faults: Sequence[BatchFault], lines: Sequence[int]) -> Document:
    """What the shard keeps: every fault with the number of the user's line it is about."""
    known = faults or (_SILENT,)
    return {
        "code": known[0].code,
        "message": known[0].message,
        "errors": [
            {
                "code": fault.code,
                "line": _line_of(fault, lines),
                "message": fault.message,
                "param": fault.param,
            }
            for fault in known[:MAX_ERRORS]
        ],
    }


def _line_of(fault: BatchFault, lines: Sequence[int]) -> int | None:
    if fault.line is None or not 1 <= fault.line <= len(lines):
        return None
    return lines[fault.line - 1]
