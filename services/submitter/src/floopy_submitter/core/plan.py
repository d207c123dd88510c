"""The documents of a plan: its segments, its shards, and what the batch is given with it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from floopy_common.domain.ids import segment_id, shard_id
from floopy_common.domain.money import Rates
from floopy_common.domain.segment import SegmentState
from floopy_common.domain.shard import ShardEnd, ShardKind, ShardState, untried
from floopy_common.providers.unsent import PROVIDER
from floopy_submitter.core.cutting import Segment, Shard
from floopy_submitter.core.faults import Fault
from floopy_submitter.core.unsent import UnsentShard
from floopy_submitter.ports import Document, PriceList

BYTES_A_TOKEN = 4
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
        **_any_shard(batch, plan_id, no, shard.group, model, now),
        "provider": batch["provider"],
        "kind": ShardKind.PRIMARY.value,
        "ranges": shard.ranges,
        "lines": shard.lines,
        "bytes": shard.bytes,
        "tokens_estimate": shard.bytes // BYTES_A_TOKEN,
        "segments": shard.segments,
    }


def unsent_document(
    batch: Document, plan_id: str, no: int, shard: UnsentShard, model: str, archive: Document, now: datetime
) -> Document:
    """A shard that nobody is sent: it has all its answers already."""
    return {
        **_any_shard(batch, plan_id, no, shard.group, model, now),
        "provider": PROVIDER,
        "kind": ShardKind.REFUSED.value,
        "ranges": shard.ranges,
        "lines": len(shard.entries),
        "bytes": 0,
        "tokens_estimate": 0,
        "segments": shard.segments,
        "state": ShardState.SETTLED.value,
        "archive": archive,
        "ended": ShardEnd.FINISHED.value,
        "ended_at": now,
    }


def _any_shard(batch: Document, plan_id: str, no: int, group: int, model: str, now: datetime) -> Document:
    return {
        "_id": shard_id(plan_id, no),
        "batch_id": batch["_id"],
        "org_id": batch["org_id"],
        "plan_id": plan_id,
        "no": no,
        "account_id": batch["account_id"],
        "endpoint": batch["endpoint"],
        "model": model,
        "group": group,
        "depth": 0,
        "parent": None,
        "created_at": now,
        **untried(),
    }


def archive_document(index_blob: str, shard: UnsentShard, answers: Document | None) -> Document:
    """As the reconciler keeps what it has collected."""
    return {
        "index_blob": index_blob,
        "output": None,
        "error": answers,
        "lines": len(shard.entries),
        "quarantined": dict.fromkeys(("unknown", "duplicate", "malformed", "oversized"), 0),
    }


@dataclass(frozen=True)
class Upstream:
    """What of a plan is up to the provider; `models` are the ids that are sent, where names stand for them.

    `translation_blob`: what every translation of the batch's lines depends on.
    """

    translator_version: int
    models: Mapping[str, str | None] | None = None
    translation_blob: str | None = None


def plan_document(
    batch: Document,
    *,
    plan_id: str,
    models: Sequence[str],
    lines: int,
    segments: int,
    shards: int,
    index_blob: str,
    upstream: Upstream,
    prices: PriceList,
    month: str,
    now: datetime,
) -> Document:
    """`models` are those of the groups, in order; their rates hold for the batch from now on."""
    groups = [_group(batch, model, upstream, prices, now) for model in models]
    translation = {} if upstream.translation_blob is None else {"translation_blob": upstream.translation_blob}
    return {
        "plan_id": plan_id,
        "total": lines,
        "segments": segments,
        "shards": shards,
        "model": groups[0]["model"],
        "groups": groups,
        "index_blob": index_blob,
        "price_version": prices.version,
        "translator_version": upstream.translator_version,
        **translation,
        "month": month,
    }


def _group(batch: Document, model: str, upstream: Upstream, prices: PriceList, now: datetime) -> Document:
    if upstream.models is None:
        return {"model": model, "rates": _rates(prices.batch_rates(batch["provider"], model, now))}
    sent = upstream.models.get(model)
    rates = prices.batch_rates(batch["provider"], sent or model, now)
    return {"model": model, "sent": sent, "rates": _rates(rates)}


def _rates(rates: Rates) -> Document:
    document: Document = msgspec.to_builtins(rates)
    return document


def planned_fields(
    plan: Document, shards: Sequence[Document], now: datetime, audit_after: float = 0.0
) -> Document:
    """What the batch gets in the write that makes the plan its own.

    `audit_after`: seconds until it is audited though nobody has said that anything of it is written.
    """
    return {
        "plan": plan,
        "counts.total": plan["total"],
        "summary.shards": dict(Counter(shard["state"] for shard in shards)),
        "next_look_at": now,
        "audit.stage": "open",
        "audit.next_at": now + timedelta(seconds=audit_after),
        "audit.pace": audit_after or None,
    }


def refused_fields(refusal: Sequence[Fault]) -> Document:
    """What the batch gets in the write that fails it: nothing of it will ever have to be accounted for."""
    return {
        "errors": [fault.to_document() for fault in refusal],
        "audit.stage": "closed",
        "audit.balanced": True,
    }
