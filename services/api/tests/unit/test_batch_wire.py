"""The batch object: every key, every time, in the shape the SDK reads."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from openai.types import Batch

from floopy_api.core.authentication import Caller
from floopy_api.core.create import Beginning, CreateOptions, batch_document, read_create
from floopy_api.core.progress import to_wire
from floopy_common.domain.plans import PLANS

CREATED = datetime(2026, 11, 25, 12, 0, 0, 123_000, tzinfo=UTC)
BODY = {
    "input_file_id": "file-1",
    "endpoint": "/v1/chat/completions",
    "completion_window": "24h",
    "metadata": {"price": "$5 off"},
}


def make_batch(**changes: Any) -> dict[str, Any]:
    beginning = Beginning(
        batch_id="batch_1",
        caller=Caller("org_1", "key_1"),
        request=read_create(BODY),
        options=CreateOptions(headers={"floopy-session-id": "s-1", "user-agent": "test"}),
        request_hash="hash",
        org={"_id": "org_1", "plan": "pro", "content_policy": "reference", "sample_rate": 0.05},
        plan=PLANS["pro"],
        account={"_id": "acct_1", "provider": "openai"},
        input=None,
        created_at=CREATED,
        window=86_400.0,
    )
    return {**batch_document(beginning), **changes}


def wire(**changes: Any) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(to_wire(make_batch(**changes))))
    return decoded


@pytest.mark.surface("3.3 every field, always")
def test_a_new_batch_has_every_key_of_openai_and_ours() -> None:
    assert set(wire()) >= set(Batch.model_fields) | {"floopy"}


@pytest.mark.surface("3.3 errors, usage and timestamps are null; expires_at")
def test_a_new_batch_is_what_the_sdk_reads() -> None:
    batch = Batch.model_validate(wire())

    assert batch.status == "validating"
    assert batch.created_at == int(CREATED.timestamp())
    assert batch.expires_at == batch.created_at + 86_400
    assert batch.errors is None
    assert batch.usage is None
    assert batch.metadata == {"price": "$5 off"}


def test_a_new_document_has_every_field_the_other_parts_count_on() -> None:
    assert set(make_batch()) == {
        *("_id", "org_id", "api_key_id", "version", "status", "created_at", "expires_at"),
        *("in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at"),
        *("cancelling_at", "cancelled_at", "endpoint", "completion_window", "metadata"),
        *("output_expires_after", "provider", "account_id", "input_file_id", "input", "context"),
        *("plan", "errors", "counts", "summary", "usage", "output_file_id", "error_file_id"),
        *("ending", "ending_at", "audit", "request_hash", "retry_count", "lease", "next_look_at"),
    }


def test_the_context_says_who_asked_and_how() -> None:
    assert make_batch()["context"] == {
        "plan": "pro",
        "feedback": True,
        "monthly_line_cap": 50_000_000,
        "retention_days": 30,
        "content_policy": "reference",
        "sample_rate": 0.05,
        "session_id": "s-1",
        "headers": {"floopy-session-id": "s-1", "user-agent": "test"},
    }


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("in_progress", {"total": 10, "completed": 4, "failed": 1}),
        ("cancelling", {"total": 10, "completed": 4, "failed": 1}),
        ("completed", {"total": 10, "completed": 8, "failed": 2}),
        ("cancelled", {"total": 10, "completed": 8, "failed": 2}),
    ],
)
@pytest.mark.surface("3.3 request_counts")
def test_counts_come_from_the_providers_until_the_end(status: str, expected: dict[str, int]) -> None:
    summary = {"shards": {"submitted": 1}, "queue": None, "counts": {"completed": 4, "failed": 1}}
    counts = {"total": 10, "completed": 8, "failed": 2}

    assert wire(status=status, counts=counts, summary=summary)["request_counts"] == expected


@pytest.mark.surface("3.3 errors")
def test_faults_of_the_input_are_listed() -> None:
    fault = {"code": "invalid_json_line", "line": 2, "message": "No.", "param": None}

    assert wire(status="failed", errors=[fault])["errors"] == {"object": "list", "data": [fault]}


@pytest.mark.surface("3.3 usage")
def test_usage_has_the_names_of_the_responses_api() -> None:
    usage = {
        "input_tokens": 10,
        "cached_tokens": 2,
        "output_tokens": 5,
        "reasoning_tokens": 1,
        "total_tokens": 15,
    }

    assert wire(usage=usage)["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 2},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 15,
    }


def test_our_own_object_says_where_every_line_is() -> None:
    queue = {
        "position": 3,
        "reason": "provider_queue_full",
        "next_attempt_at": CREATED + timedelta(seconds=60),
    }
    audit = {
        **make_batch()["audit"],
        "answered": 9,
        "logged": 8,
        "metered": 7,
        "scored": 6,
        "parked": 1,
        "balanced": False,
    }
    progress = wire(
        counts={"total": 10, "completed": 0, "failed": 0},
        summary={"shards": {"waiting": 2}, "queue": queue, "counts": {"completed": 0, "failed": 0}},
        audit=audit,
    )["floopy"]

    assert progress == {
        "provider": "openai",
        "shards": {"waiting": 2},
        "queue": {
            "position": 3,
            "reason": "provider_queue_full",
            "next_attempt_at": int(CREATED.timestamp()) + 60,
        },
        "lines": {"total": 10, "answered": 9, "logged": 8, "metered": 7, "scored": 6, "parked": 1},
        "balanced": False,
    }


def test_nothing_of_the_inside_shows() -> None:
    shown = repr(wire())

    for hidden in ("acct_1", "key_1", "org_1", "lease", "hash"):
        assert hidden not in shown
