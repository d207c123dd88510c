"""Writes contracts/events from the code: the JSON Schema of every event, and golden messages.

python -m floopy.contracts contracts/events

The API's own document goes beside the folder, as openapi.json.
"""

import importlib
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, create_model

from floopy_common.domain.ids import line_id
from floopy_common.domain.line import LineStatus
from floopy_common.events import lines
from floopy_common.events.lifecycle import SOURCE as BATCHES
from floopy_common.events.lifecycle import BatchEvent, lifecycle_event
from floopy_common.events.line_schema import LineEvent
from floopy_common.events.scores import (
    LINE_SCORED,
    ROUTING_SCORE_UPDATED,
    LineScoredEvent,
    RoutingScore,
    RoutingScoreEvent,
    routing_event,
    scored_event,
)
from floopy_common.events.usage import SOURCE as USAGE
from floopy_common.events.usage import USAGE_RECORDED, UsageRecorded, usage_event

SCHEMA: Final = "schema.json"
GOLDEN: Final = "golden.json"

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_CREATED: Final = datetime(2026, 11, 24, 12, 0, 0, 250_000, tzinfo=UTC)
_SUBMITTED: Final = datetime(2026, 11, 24, 12, 0, 4, tzinfo=UTC)
_COMPLETED: Final = datetime(2026, 11, 24, 13, 59, 59, 999_000, tzinfo=UTC)
_BATCH: Final = "batch_00112233445566778899aabbccddeeff"

_STATUS: Final[Mapping[str, str]] = {
    "batch.created": "validating",
    "batch.cancel.requested": "cancelling",
    "batch.submitted": "in_progress",
    "batch.completed": "completed",
    "batch.failed": "failed",
    "batch.expired": "expired",
    "batch.cancelled": "cancelled",
}
"""Every lifecycle event, and the status its golden message shows."""
_ENDED: Final = frozenset({"completed", "expired", "cancelled"})


def files() -> dict[str, bytes]:
    """Path below contracts/events and bytes of every generated file."""
    made: dict[str, bytes] = {}
    for event_type, model in _models().items():
        made[f"{event_type}/v1/{SCHEMA}"] = _schema(event_type, model)
    for event_type, goldens in _goldens().items():
        for name, value in goldens.items():
            made[f"{event_type}/v1/{name}"] = value + b"\n"
    return made


def _models() -> dict[str, type[BaseModel]]:
    lifecycle = {topic: _envelope(topic, BATCHES, BatchEvent) for topic in _STATUS}
    return {
        **lifecycle,
        lines.LINE_COMPLETED: LineEvent,
        LINE_SCORED: LineScoredEvent,
        USAGE_RECORDED: _envelope(USAGE_RECORDED, USAGE, UsageRecorded),
        ROUTING_SCORE_UPDATED: RoutingScoreEvent,
    }


def _envelope(event_type: str, source: str, data: type[BaseModel]) -> type[BaseModel]:
    """The CloudEvent around `data`, for the events that have no model of their own for it."""
    name = "".join(word.capitalize() for word in event_type.split("."))
    attributes: dict[str, Any] = {
        "id": (str, Field(description="Deterministic: the key to drop repeats by.")),
        "subject": (str, Field(description="The batch id, the record's key.")),
        "time": (datetime, Field(description="When it happened.")),
        "data": (data, ...),
        "specversion": (Literal["1.0"], ...),
        "type": (Literal[event_type], ...),
        "source": (Literal[source], ...),
        "datacontenttype": (Literal["application/json"], ...),
        "dataversion": (Literal[1], ...),
    }
    made: type[BaseModel] = create_model(
        f"{name}Event",
        __config__=ConfigDict(frozen=True),
        __doc__="A CloudEvent 1.0 in structured mode.",
        **attributes,
    )
    return made


def _schema(event_type: str, model: type[BaseModel]) -> bytes:
    """What a consumer may rely on: fields may be added within a major version, so none is forbidden."""
    schema = model.model_json_schema(mode="validation")
    # the models fill in attributes that every message carries
    schema["required"] = list(schema["properties"])
    named = {"$schema": _DIALECT, "$id": f"urn:floopy:events:{event_type}:v1", **schema}
    return (json.dumps(named, indent=2, ensure_ascii=False) + "\n").encode()


def _goldens() -> dict[str, dict[str, bytes]]:
    lifecycle = {topic: {GOLDEN: _lifecycle(topic, status)} for topic, status in _STATUS.items()}
    return {
        **lifecycle,
        lines.LINE_COMPLETED: {
            GOLDEN: _encoded(_line()),
            "golden-inline.json": _encoded(_inline_line()),
            "golden-failed.json": _encoded(_failed_line()),
        },
        LINE_SCORED: {GOLDEN: scored_event(_row()), "golden-unscored.json": scored_event(_unscored_row())},
        USAGE_RECORDED: {GOLDEN: _usage()},
        ROUTING_SCORE_UPDATED: {GOLDEN: _standing()},
    }


def _lifecycle(topic: str, status: str) -> bytes:
    planned = status not in {"validating", "failed"}
    batch: dict[str, Any] = {
        "_id": _BATCH,
        "org_id": "org_0011223344556677",
        "version": 4 if status in _ENDED else 2,
        "status": status,
        "provider": "openai",
        "endpoint": "/v1/chat/completions",
        "context": {"session_id": "session-1"},
        "counts": {"total": 3 if planned else 0, "completed": 2 if status in _ENDED else 0, "failed": 0},
        "created_at": _CREATED,
        "plan": {"model": "gpt-4o-mini", "segments": 1} if planned else None,
        "output_file_id": "file-00112233445566778899aabb" if status in _ENDED else None,
        "error_file_id": None,
    }
    shard = "plan_00112233445566778899:00000" if topic == "batch.submitted" else None
    return lifecycle_event(topic, batch, at=_COMPLETED if status in _ENDED else _SUBMITTED, shard_id=shard)[1]


def _line() -> lines.LineCompleted:
    return lines.LineCompleted(
        source="batch",
        org_id="org_0011223344556677",
        api_key_id="key_0011223344556677",
        batch_id=_BATCH,
        segments=1,
        segment=lines.SegmentRef(no=0, first_line=1, last_line=4, lines=3),
        line_id=line_id(_BATCH, 2),
        line_no=2,
        custom_id="größe \u2028 2",
        provider="openai",
        model="gpt-4o-mini",
        endpoint="/v1/chat/completions",
        status=LineStatus.SUCCEEDED,
        status_code=200,
        error=None,
        finish_reason="stop",
        usage=lines.LineUsage(100, 20, 30, 5, 130),
        cost=lines.LineCost(21_750, None, "genai-prices==0.0.1"),
        timing=lines.LineTiming(_CREATED, _SUBMITTED, _COMPLETED),
        session_id="session-1",
        content_policy="reference",
        request=lines.Content("blob_input", 180, 120, "Say hello"),
        response=lines.Content("blob_output", 300, 280, "Hello."),
    )


def _inline_line() -> lines.LineCompleted:
    request = msgspec.Raw(b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Say hello"}]}')
    response = msgspec.Raw(b'{"choices":[{"message":{"content":"Hello."},"finish_reason":"stop"}]}')
    return msgspec.structs.replace(
        _line(),
        content_policy="inline",
        request=lines.Content("blob_a", 180, 74, "Say hello", request, (lines.BlobRange("blob_b", 0, 12),)),
        response=lines.Content("blob_output", 300, 69, "Hello.", response),
    )


def _failed_line() -> lines.LineCompleted:
    return msgspec.structs.replace(
        _line(),
        status=LineStatus.EXPIRED,
        status_code=None,
        error=lines.LineFailure("batch_expired", "This request could not be executed in time."),
        finish_reason=None,
        usage=None,
        cost=lines.LineCost(0, None, None),
        timing=lines.LineTiming(_CREATED, None, _COMPLETED),
        content_policy="none",
        request=lines.Content("blob_input", 180, 120, None),
        response=None,
    )


def _encoded(line: lines.LineCompleted) -> bytes:
    return lines.encode_line(lines.line_event(line, _COMPLETED))


def _row() -> dict[str, Any]:
    return {
        "_id": line_id(_BATCH, 2),
        "org_id": "org_0011223344556677",
        "batch_id": _BATCH,
        "segment": 0,
        "line_no": 2,
        "custom_id": "größe \u2028 2",
        "status": "scored",
        "scorer_version": "heuristics-2",
        "quality": 0.75,
        "checks": {
            "finish": {"ok": False, "detail": "length"},
            "answer": {"ok": True, "detail": None},
            "refusal": {"ok": True, "detail": None},
            "repetition": {"ok": True, "detail": None},
        },
        "provider": "openai",
        "model": "gpt-4o-mini",
        "completed_at": _COMPLETED,
    }


def _unscored_row() -> dict[str, Any]:
    return {**_row(), "status": "not_in_plan", "quality": None, "checks": {}}


def _usage() -> bytes:
    usage = UsageRecorded(
        batch_id=_BATCH,
        org_id="org_0011223344556677",
        month="202611",
        revision=1,
        lines=3,
        failed=1,
        not_run=0,
        billable=2,
        input_tokens=200,
        cached_tokens=40,
        output_tokens=60,
        reasoning_tokens=10,
        cost_nano_usd=43_500,
        unpriced=0,
    )
    return usage_event(usage, _COMPLETED)[1]


def _standing() -> bytes:
    score = RoutingScore(
        org_id="org_0011223344556677",
        provider="openai",
        model="gpt-4o-mini",
        version=2,
        scorer_version="heuristics-2",
        quality=0.9375,
        lines=4_000,
        segments=2,
        updated_at=_COMPLETED,
    )
    return routing_event(score)[2]


def write(directory: Path) -> None:
    for path, content in files().items():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
    # the people's CLI is installed without the services; whoever writes contracts has them all
    described = importlib.import_module("floopy_api.handlers.openapi").rendered_document()
    (Path(sys.argv[1]).parent / "openapi.json").write_bytes(described)
