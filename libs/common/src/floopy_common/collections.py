"""Every collection and index, declared once; an idempotent job creates them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCHEMA_VERSION = 1
"""Major version of the documents; a service refuses to start on a newer one."""


@dataclass(frozen=True)
class Index:
    name: str
    keys: tuple[tuple[str, int], ...]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CollectionSpec:
    """A collection, what one document of it is, and its indexes."""

    name: str
    document: str
    indexes: tuple[Index, ...] = ()
    retired: tuple[str, ...] = ()
    """Names of indexes an earlier release declared, dropped once those of this one are there."""


def _index(*keys: str, unique: bool = False, where: Mapping[str, Any] | None = None) -> Index:
    """An index over `keys` (a leading `-` means descending), partial when `where` is given."""
    pairs = tuple((key.lstrip("-"), -1 if key.startswith("-") else 1) for key in keys)
    options: dict[str, Any] = {}
    if unique:
        options["unique"] = True
    if where is not None:
        options["partialFilterExpression"] = dict(where)
    return Index("_".join(key.replace(".", "_") for key, _ in pairs), pairs, options)


_PARKED = _index("batch_id", "segment", where={"status": "parked"})
# one an API key. The organisation is in it for old files, which do not name theirs: two may have the same
_IDEMPOTENCY_KEY = _index(
    "org_id",
    "api_key_id",
    "idempotency_key",
    unique=True,
    where={"idempotency_key": {"$type": "string"}},
)
_KEY_OF_ORG = "org_id_idempotency_key"
"""Retired: a key was an organisation's once, whichever API key it came with."""
_PENDING_OUTBOX = _index("outbox.id", where={"outbox.id": {"$exists": True}})

COLLECTIONS: dict[str, CollectionSpec] = {
    spec.name: spec
    for spec in (
        CollectionSpec("meta", "the schema version"),
        CollectionSpec("orgs", "an organisation"),
        CollectionSpec("api_keys", "an API key's digest", (_index("digest", unique=True), _index("org_id"))),
        CollectionSpec("provider_accounts", "an organisation's key for one provider", (_index("org_id"),)),
        CollectionSpec("provider_models", "an account's models, as its provider's Models API tells them"),
        CollectionSpec("caps", "lines used and reserved by an organisation in one month"),
        CollectionSpec(
            "files",
            "a file: an ordered list of blob ranges",
            (
                _index("org_id", "-created_at", "-_id"),
                _index("ranges.blob"),
                _index("batch_id"),
                _index("deleted_at", where={"deleted_at": {"$type": "date"}}),
                _index("expires_at", where={"expires_at": {"$type": "date"}}),
                _IDEMPOTENCY_KEY,
            ),
            retired=(_KEY_OF_ORG,),
        ),
        CollectionSpec(
            "blobs",
            "a blob; written last, so its presence means it is whole",
            (_index("state", "created_at"), _index("pins")),
        ),
        CollectionSpec("blob_chunks", "bytes of a blob"),
        CollectionSpec(
            "uploads",
            "an upload in parts; `parts` is emptied once nothing of them is to be kept for it",
            (
                _index("status", "expires_at"),
                _index("parts.blob"),
                _index("settled", where={"settled": False}),
                _IDEMPOTENCY_KEY,
            ),
            retired=(_KEY_OF_ORG,),
        ),
        CollectionSpec(
            "batches",
            "a batch with its plan, its pending events and its audit",
            (
                _index("org_id", "-created_at", "-_id"),
                _index("status", "next_look_at"),
                _index("status", "cleanup.next_at"),
                _index("audit.stage", "audit.next_at"),
                _IDEMPOTENCY_KEY,
                _index("api_key_id", "request_hash", "-nth", unique=True, where={"nth": {"$gte": 0}}),
                _index("org_id", "created_at", where={"status": "validating"}),
                _index("planning.month", where={"planning.month": {"$exists": True}}),
                _PENDING_OUTBOX,
            ),
            retired=(_KEY_OF_ORG,),
        ),
        CollectionSpec(
            "segments",
            "a contiguous range of a batch's lines",
            (
                _index("batch_id", "plan_id", "no"),
                _index(
                    "batch_id", "no", "state", where={"ready": True, "state": {"$in": ["open", "written"]}}
                ),
            ),
        ),
        CollectionSpec(
            "shards",
            "the part of a batch that becomes one provider batch",
            (
                _index("batch_id", "plan_id", "no"),
                _index("state", "poll.next_at", "account_id"),
                _index("account_id", "submitted_at", where={"state": {"$in": ["submitted", "cancelling"]}}),
                _index("state", "waiting.next_attempt_at"),
                _index("account_id", "waiting.since", where={"state": "waiting"}),
                _index("state", "queued_since", "created_at", "_id"),
                _index("account_id", "provider_batch_id"),
                _index("provider_batch_id", where={"provider_batch_id": {"$type": "string"}}),
                _index("attempts.phase", where={"attempts.phase": {"$in": ["creating", "unknown"]}}),
                _index("sweep.next_at", where={"sweep.next_at": {"$exists": True}}),
                _index("state", "lease.expires_at", where={"lease.deaths": {"$gte": 1}}),
                _PENDING_OUTBOX,
            ),
        ),
        CollectionSpec(
            "listings",
            "who reads an account's list of provider batches, and how far apart its pages are",
            (_index("lease.expires_at"),),
        ),
        CollectionSpec("create_turns", "who creates on an account whose provider batches look all the same"),
        CollectionSpec("usage_ledger", "one line's usage and cost", (_PARKED,), retired=("org_id_hour",)),
        CollectionSpec(
            "usage_rollups",
            "usage of one segment",
            (_index("batch_id", "segment"), _index("org_id", "hours")),
        ),
        CollectionSpec("usage_batches", "usage of one finished batch", (_PENDING_OUTBOX,)),
        CollectionSpec(
            "requests",
            "one line's row in the request log",
            (
                _index("org_id", "-completed_at", "-_id"),
                # most lines have no session: they are left out
                _index("org_id", "session_id", "-completed_at", where={"session_id": {"$gt": ""}}),
                _index("org_id", "custom_id"),
                _PARKED,
            ),
        ),
        CollectionSpec("scores", "one line's scores", (_PARKED,)),
        CollectionSpec("judgements", "one judge's verdict on a line"),
        CollectionSpec(
            "score_rollups",
            "what one segment adds to the standing of one model",
            (
                _index("org_id", "provider", "model", "-completed_at"),
                _index("pending", where={"pending": True}),
            ),
        ),
        CollectionSpec(
            "routing_scores",
            "standing of a model for an organisation",
            (_index("unpublished", where={"unpublished": True}),),
        ),
        CollectionSpec(
            "receipts", "a sink's confirmation of one segment", (_index("batch_id", "sink", "segment"),)
        ),
        CollectionSpec(
            "orphan_provider_batches",
            "a provider batch nobody should have made",
            (_index("batch_id"), _index("next_at", where={"settled": False})),
        ),
        CollectionSpec(
            "dead_letters",
            "where a record that could not be taken went",
            (_index("line_id"), _index("state", "at")),
        ),
    )
}
