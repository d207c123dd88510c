"""Makes a batch terminal: its files first, then one conditional update with everything in it."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from floopy_common.domain.batch import BatchStatus, Ending
from floopy_common.domain.ids import output_file_id
from floopy_common.domain.shard import ShardEnd, ShardKind, ShardState
from floopy_reconciler.core.agenda import Agenda
from floopy_reconciler.core.refuse import MAX_ERRORS
from floopy_reconciler.ports import (
    Batches,
    BatchReports,
    Document,
    Hit,
    Now,
    OutputFiles,
    SegmentProgress,
)

_log = logging.getLogger(__name__)

_BY = "floopy-reconciler"
_KEPT_FOR = timedelta(days=30)
"""How long an output or error file stands when the batch does not say."""
_USAGE = (
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "total_tokens",
)
_CLOSED = {"audit.stage": "closed", "audit.balanced": True}
_NOTHING = {"total": 0, "completed": 0, "failed": 0}


class Finaliser:
    """Moves a batch whose shards have all ended, one legal status at a time."""

    def __init__(
        self,
        *,
        batches: Batches,
        agenda: Agenda,
        segments: SegmentProgress,
        files: OutputFiles,
        reports: BatchReports,
        relay: Callable[[], None],
        now: Now,
        hit: Hit,
    ) -> None:
        """`relay` is called when an event is pending."""
        self._batches = batches
        self._agenda = agenda
        self._segments = segments
        self._files = files
        self._reports = reports
        self._relay = relay
        self._now = now
        self._hit = hit

    async def end_unplanned(self, batch: Document) -> None:
        """Cancelled before it was planned: there is nothing to collect and nothing to audit."""
        fields = {**_CLOSED, "counts": dict(_NOTHING)}
        await self._end(batch, BatchStatus.CANCELLED, fields)

    async def advance(self, batch: Document, shards: Sequence[Document], *, is_written: bool = True) -> bool:
        """As far as it goes now; a batch that somebody changed meanwhile gets another turn.

        `is_written`: no segment is known not to be. False when the batch did not end.
        """
        status = BatchStatus(batch["status"])
        if status is not BatchStatus.CANCELLING and all_refused(shards):
            return await self._fail(batch, shards)
        if status is BatchStatus.IN_PROGRESS:
            moved = await self._batches.transition(batch, BatchStatus.FINALIZING, now=self._now(), by=_BY)
            if moved is None:
                self._agenda.ask(batch["_id"])
                return False
            batch = moved
        return is_written and await self._finish(batch, shards)

    async def _fail(self, batch: Document, shards: Sequence[Document]) -> bool:
        fields = {**_CLOSED, "counts": dict(_NOTHING), "errors": errors_of(shards)}
        return await self._end(batch, BatchStatus.FAILED, fields)

    async def _finish(self, batch: Document, shards: Sequence[Document]) -> bool:
        batch_id, plan = batch["_id"], batch["plan"]
        # the manifests of one segment cost no more than a count
        if plan["segments"] > 1 and await self._segments.count_open(batch_id, plan["plan_id"]):
            return False
        segments = await self._segments.written(batch_id, plan["plan_id"])
        if len(segments) != plan["segments"]:
            if not await self._segments.count_open(batch_id, plan["plan_id"]):
                _log.error(
                    "a planned segment is missing",
                    extra={"event": "segment_missing", "batch_id": batch_id, "segments": len(segments)},
                )
            return False
        fields: Document = {"counts": counts_of(segments, plan["total"]), "usage": usage_of(segments)}
        for kind in ("output", "error"):
            fields[f"{kind}_file_id"] = await self._store_file(batch, segments, kind)
        self._hit("finalise.after_files")
        return await self._end(batch, final_status(batch, shards), fields)

    async def _store_file(self, batch: Document, segments: Sequence[Document], kind: str) -> str | None:
        """The file's id; None when it would have no line. A repeat finds the file of the first time."""
        file = output_file(batch, segments, kind, self._now())
        if file is None:
            return None
        await self._files.insert_output(file)
        return str(file["_id"])

    async def _end(self, batch: Document, to: BatchStatus, fields: Document) -> bool:
        now = self._now()
        ended = await self._batches.transition(
            batch,
            to,
            now=now,
            by=_BY,
            event=f"batch.{to.value}",
            fields={**fields, "cleanup": {"stage": "inputs", "next_at": now}},
        )
        if ended is None:
            self._agenda.ask(batch["_id"])
            return False
        self._hit("finalise.after_transition")
        self._relay()
        self._reports.ended(to)
        _log.info(
            "batch ended",
            extra={"event": "batch_ended", "batch_id": batch["_id"], "status": to.value},
        )
        return True


def all_refused(shards: Sequence[Document]) -> bool:
    """Whether the provider took nothing of the batch, so that nothing of it ran."""
    return bool(shards) and all(shard["state"] == ShardState.REFUSED.value for shard in shards)


def final_status(batch: Document, shards: Sequence[Document]) -> BatchStatus:
    """Expired also when a provider's window ended before ours."""
    if batch["status"] == BatchStatus.CANCELLING.value:
        return BatchStatus.CANCELLED
    cut_short = any(
        shard["ended"] == ShardEnd.EXPIRED.value and shard["kind"] == ShardKind.PRIMARY.value
        for shard in shards
    )
    if cut_short or batch["ending"] == Ending.EXPIRED.value:
        return BatchStatus.EXPIRED
    return BatchStatus.COMPLETED


def errors_of(shards: Sequence[Document]) -> list[Document]:
    """The providers' faults in line order, those about no line first, each once."""
    found: dict[tuple[Any, ...], Document] = {}
    for shard in shards:
        for error in (shard.get("refused") or {}).get("errors", []):
            found.setdefault(tuple(error.get(name) for name in ("line", "code", "message", "param")), error)
    return sorted(found.values(), key=lambda error: error["line"] or 0)[:MAX_ERRORS]


def counts_of(segments: Sequence[Document], total: int) -> dict[str, int]:
    completed = sum(segment["counts"]["completed"] for segment in segments)
    failed = sum(segment["counts"]["failed"] for segment in segments)
    return {"total": total, "completed": completed, "failed": failed}


def usage_of(segments: Sequence[Document]) -> dict[str, int]:
    return {name: sum((segment["usage"] or {}).get(name) or 0 for segment in segments) for name in _USAGE}


def output_file(batch: Document, segments: Sequence[Document], kind: str, now: datetime) -> Document | None:
    """The file's document: its segments' parts in order, nothing copied together; None without a line."""
    parts = [segment["manifest"][kind] for segment in segments if segment["manifest"][kind] is not None]
    if not parts:
        return None
    return {
        "_id": output_file_id(batch["_id"], kind),
        "org_id": batch["org_id"],
        "filename": f"{batch['_id']}_{kind}.jsonl",
        "purpose": "batch_output",
        "bytes": sum(part["length"] for part in parts),
        "created_at": now,
        "expires_at": now + _kept_for(batch),
        "deleted_at": None,
        "ranges": [
            {"blob": part["blob"], "offset": 0, "length": part["length"], "sha256": part["sha256"]}
            for part in parts
        ],
        "etag": hashlib.sha256("".join(part["sha256"] for part in parts).encode()).hexdigest(),
        "status": "processed",
        "batch_id": batch["_id"],
        "kind": kind,
    }


def _kept_for(batch: Document) -> timedelta:
    wanted = batch.get("output_expires_after")
    return _KEPT_FOR if wanted is None else timedelta(seconds=wanted["seconds"])
