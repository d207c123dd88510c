"""The documents of a plan: its segments, its shards, and what the batch is given with it."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from floopy_common.domain.ids import segment_id, shard_id
from floopy_common.domain.money import Rates
from floopy_common.domain.segment import SegmentState
from floopy_common.domain.shard import ShardKind, ShardState
from floopy_common.providers.openai.request import TRANSLATOR_VERSION
from floopy_submitter.core.cutting import Segment, Shard
from floopy_submitter.core.faults import Fault
from floopy_submitter.ports import Document, PriceList

_BYTES_A_TOKEN = 4
"""Rough, and rather too many tokens than too few: what counts is that a provider's queue is not overrun."""


def segment_document(batch: Document, plan_id: str, segment: Segment, now: datetime) -> Document:
    return {
        "_id": segment_id(plan_id, segment.no),
        "batch_id": batch["_id"],
        "org_id": batch["org_id"],
        "plan_id": plan_id,
        "no": segment.no,
        "first_line": segment.first_line,
        "last_line": segment.last_line,
        "lines": segment.lines,
        "bytes": segment.bytes,
        "index_from": segment.index_from,
        "index_to": segment.index_to,
        "ready": False,
        "state": SegmentState.OPEN.value,
        "created_at": now,
        **dict.fromkeys(("lease", "manifest", "counts", "usage", "emitted")),
    }


def shard_document(
    batch: Document, plan_id: str, no: int, shard: Shard, model: str, now: datetime
) -> Document:
    return {
        "_id": shard_id(plan_id, no),
        "batch_id": batch["_id"],
        "org_id": batch["org_id"],
        "plan_id": plan_id,
        "no": no,
        "provider": batch["provider"],
        "account_id": batch["account_id"],
        "endpoint": batch["endpoint"],
        "model": model,
        "group": shard.group,
        "kind": ShardKind.PRIMARY.value,
        "depth": 0,
        "parent": None,
        "ranges": [[shard.first_line, shard.last_line]],
        "lines": shard.lines,
        "bytes": shard.bytes,
        "tokens_estimate": shard.bytes // _BYTES_A_TOKEN,
        "segments": shard.segments,
        "state": ShardState.PLANNED.value,
        "attempt": 0,
        "attempts": [],
        "downloads": 0,
        "created_at": now,
        **dict.fromkeys(_NOT_YET),
    }


_NOT_YET = (
    "waiting",
    "lease",
    "provider_batch_id",
    "provider_status",
    "provider_counts",
    "submitted_at",
    "poll",
    "cancel_asked_at",
    "archive",
    "ended",
    "ended_at",
    "refused",
)


def plan_document(
    batch: Document,
    *,
    plan_id: str,
    models: Sequence[str],
    lines: int,
    segments: int,
    shards: int,
    index_blob: str,
    prices: PriceList,
    month: str,
    now: datetime,
) -> Document:
    """`models` are those of the groups, in order; their rates hold for the batch from now on."""
    groups = [
        {"model": model, "rates": _rates(prices.batch_rates(batch["provider"], model, now))}
        for model in models
    ]
    return {
        "plan_id": plan_id,
        "total": lines,
        "segments": segments,
        "shards": shards,
        "model": groups[0]["model"],
        "groups": groups,
        "index_blob": index_blob,
        "price_version": prices.version,
        "translator_version": TRANSLATOR_VERSION,
        "month": month,
    }


def _rates(rates: Rates) -> Document:
    document: Document = msgspec.to_builtins(rates)
    return document


def planned_fields(plan: Document, now: datetime) -> Document:
    """What the batch gets in the write that makes the plan its own."""
    return {
        "plan": plan,
        "counts.total": plan["total"],
        "summary.shards": {ShardState.PLANNED.value: plan["shards"]},
        "next_look_at": now,
        "audit.stage": "open",
        "audit.next_at": now,
    }


def refused_fields(refusal: Sequence[Fault]) -> Document:
    """What the batch gets in the write that fails it: nothing of it will ever have to be accounted for."""
    return {
        "errors": [fault.to_document() for fault in refusal],
        "audit.stage": "closed",
        "audit.balanced": True,
    }
