"""What is stored of a batch all of whose lines are answered, and what a provider says to a line."""

import json
from datetime import UTC, datetime
from typing import Any

from floopy_common.domain.ids import segment_id, shard_id
from floopy_common.stores.blobs import Blob
from floopy_reconciler.core.retry import runs

RATES = {"input_nano": 75_000_000, "cached_nano": 37_500_000, "output_nano": 300_000_000, "flag": None}


def new_batch(
    batch_id: str, plan_id: str, lines: int, segments: int, blob: Blob, index: Blob, **changes: Any
) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "_id": batch_id,
        "org_id": "org_1",
        "api_key_id": "key_1",
        "version": 2,
        "status": "completed",
        "created_at": now,
        "completed_at": now,
        "endpoint": "/v1/chat/completions",
        "provider": "openai",
        "input": {"ranges": [{"blob": blob.id, "offset": 0, "length": blob.length}]},
        "context": {"content_policy": "reference", "session_id": None},
        "plan": {
            "plan_id": plan_id,
            "total": lines,
            "segments": segments,
            "groups": [{"model": "gpt-4o-mini", "rates": RATES}],
            "index_blob": index.id,
            "price_version": "test",
        },
        "counts": {"total": lines, "completed": 0, "failed": 0},
        "ending": None,
        "audit": {
            "stage": "open",
            "next_at": now,
            **dict.fromkeys(("answered", "logged", "metered", "scored", "parked"), 0),
            "balanced": False,
        },
        **changes,
    }


def new_segment(batch_id: str, plan_id: str, no: int, start: int, part: list[Any]) -> dict[str, Any]:
    return {
        "_id": segment_id(plan_id, no),
        "batch_id": batch_id,
        "org_id": "org_1",
        "plan_id": plan_id,
        "no": no,
        "first_line": part[0][0],
        "last_line": part[-1][0],
        "lines": len(part),
        "bytes": sum(length for _, _, length, _ in part),
        "index_from": start,
        "index_to": start + len(part),
        "ready": True,
        "state": "open",
        **dict.fromkeys(("lease", "manifest", "counts", "usage", "emitted")),
        "created_at": datetime.now(UTC),
    }


def new_shard(
    batch: dict[str, Any], numbers: list[int], segments: list[dict[str, Any]], depth: int, **changes: Any
) -> dict[str, Any]:
    """A settled shard over the lines `numbers`, in order."""
    now = datetime.now(UTC)
    return {
        "_id": shard_id(batch["plan"]["plan_id"], 0) + ".r" * depth,
        "batch_id": batch["_id"],
        "plan_id": batch["plan"]["plan_id"],
        "no": 0,
        "depth": depth,
        "group": 0,
        "provider": "openai",
        "provider_batch_id": "batch_upstream",
        "ranges": runs(numbers, range(1, batch["plan"]["total"] + 1)),
        "segments": [
            s["no"] for s in segments if any(s["first_line"] <= n <= s["last_line"] for n in numbers)
        ],
        "state": "settled",
        "ended": "finished",
        "ended_at": now,
        "submitted_at": now,
        "refused": None,
        **changes,
    }


def success(line: int, text: str) -> bytes:
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14},
    }
    response = {"status_code": 200, "request_id": f"req_{line}", "body": body}
    return json.dumps({"custom_id": f"n-{line}", "response": response, "error": None}).encode()


def failure(line: int) -> bytes:
    body = {"error": {"message": "try later", "type": "server_error", "param": None, "code": None}}
    response = {"status_code": 503, "request_id": f"req_{line}", "body": body}
    return json.dumps({"custom_id": f"n-{line}", "response": response, "error": None}).encode()
