"""Batches as the API inserts them, and their plans, segments and shards as the planner does."""

from datetime import UTC, datetime, timedelta
from typing import Any

from floopy_common.chassis.clock import SystemClock
from floopy_common.domain.ids import segment_id, shard_id

CHAT = "/v1/chat/completions"


def input_of(blob: str, length: int) -> dict[str, Any]:
    """What a batch keeps of a file that is one blob."""
    return {
        "ranges": [{"blob": blob, "offset": 0, "length": length}],
        "bytes": length,
        "filename": "in.jsonl",
        "purpose": "batch",
    }


def batch_document(
    batch_id: str, org_id: str, account_id: str, snapshot: dict[str, Any] | None, *, cap: int | None = None
) -> dict[str, Any]:
    """A batch to be validated; `snapshot` is its input, None where nobody knows it."""
    now = SystemClock().now()
    moments = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
    progress = dict.fromkeys(("answered", "logged", "metered", "scored", "parked"), 0)
    return {
        "_id": batch_id,
        "org_id": org_id,
        "api_key_id": "key_test",
        "version": 1,
        "status": "validating",
        "created_at": now,
        "expires_at": now + timedelta(days=1),
        **dict.fromkeys(f"{moment}_at" for moment in moments),
        "endpoint": CHAT,
        "completion_window": "24h",
        "metadata": {"price": "$5 off", "all": "$$ROOT"},
        "output_expires_after": None,
        "provider": "openai",
        "account_id": account_id,
        "input_file_id": "file-test",
        "input": snapshot,
        "context": {
            "plan": "pro",
            "feedback": True,
            "monthly_line_cap": cap,
            "retention_days": 30,
            "content_policy": "reference",
            "sample_rate": 0.0,
            "session_id": None,
            "headers": {},
        },
        "plan": None,
        "errors": None,
        "counts": {"total": 0, "completed": 0, "failed": 0},
        "summary": {"shards": {}, "queue": None, "counts": {"completed": 0, "failed": 0}},
        "usage": None,
        "output_file_id": None,
        "error_file_id": None,
        "ending": None,
        "ending_at": None,
        "audit": {"stage": "idle", "next_at": None, **progress, "balanced": False},
        "request_hash": "hash",
        "retry_count": 0,
        "outbox": [],
        "lease": None,
        "next_look_at": now,
    }


def plan_document(plan_id: str, total: int, parts: int, index_blob: str) -> dict[str, Any]:
    rates = {"input_nano": 75, "cached_nano": 37, "output_nano": 300, "flag": None}
    return {
        "plan_id": plan_id,
        "total": total,
        "segments": parts,
        "shards": parts,
        "model": "gpt-4o-mini",
        "groups": [{"model": "gpt-4o-mini", "rates": rates}],
        "index_blob": index_blob,
        "price_version": "test",
        "translator_version": 1,
        "month": "202611",
    }


def segment_document(batch_id: str, org_id: str, plan_id: str, no: int, part: list[Any]) -> dict[str, Any]:
    return {
        "_id": segment_id(plan_id, no),
        "batch_id": batch_id,
        "org_id": org_id,
        "plan_id": plan_id,
        "no": no,
        "first_line": part[0][0],
        "last_line": part[-1][0],
        "lines": len(part),
        "bytes": sum(entry[2] for entry in part),
        "index_from": part[0][0] - 1,
        "index_to": part[-1][0],
        "ready": False,
        "state": "open",
        **dict.fromkeys(("lease", "manifest", "counts", "usage", "emitted")),
        "created_at": datetime.now(UTC),
    }


def shard_document(
    batch_id: str, org_id: str, plan_id: str, no: int, part: list[Any], account_id: str
) -> dict[str, Any]:
    empty = ("waiting", "lease", "provider_batch_id", "provider_status", "provider_counts", "submitted_at")
    empty += ("poll", "cancel_asked_at", "archive", "ended", "ended_at", "refused")
    return {
        "_id": shard_id(plan_id, no),
        "batch_id": batch_id,
        "org_id": org_id,
        "plan_id": plan_id,
        "no": no,
        "provider": "openai",
        "account_id": account_id,
        "endpoint": CHAT,
        "model": "gpt-4o-mini",
        "group": 0,
        "kind": "primary",
        "depth": 0,
        "parent": None,
        "ranges": [[part[0][0], part[-1][0]]],
        "lines": len(part),
        "bytes": 0,
        "tokens_estimate": 10 * len(part),
        "segments": [no],
        "state": "planned",
        "attempt": 0,
        "attempts": [],
        "downloads": 0,
        **dict.fromkeys(empty),
    }
