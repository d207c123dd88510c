"""Lifecycle events: what happened to a batch, one logical event per change, with the batch's version."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from floopy_common.events.envelope import encode

SOURCE = "/floopy/batches"


class BatchEvent(BaseModel):
    """Data of every `batch.*` lifecycle event; new fields may be added, none changes its meaning."""

    model_config = ConfigDict(frozen=True)

    batch_id: str
    org_id: str
    version: int = Field(description="The batch's version after the change; events may repeat and reorder.")
    status: str
    provider: str
    endpoint: str
    model: str | None = None
    session_id: str | None = None
    request_counts: dict[str, int]
    created_at: datetime
    output_file_id: str | None = None
    error_file_id: str | None = None
    shard_id: str | None = Field(default=None, description="Only on batch.submitted.")
    segments: int = Field(default=0, description="Segments whose line events belong to the batch.")


def lifecycle_event(
    topic: str, batch: dict[str, Any], *, at: datetime, shard_id: str | None = None
) -> tuple[str, bytes]:
    """(event id, bytes) of the event `topic` for the batch document as it is after the change."""
    plan = batch.get("plan") or {}
    data = BatchEvent(
        batch_id=batch["_id"],
        org_id=batch["org_id"],
        version=batch["version"],
        status=batch["status"],
        provider=batch["provider"],
        endpoint=batch["endpoint"],
        model=plan.get("model"),
        session_id=batch["context"].get("session_id"),
        request_counts=dict(batch["counts"]),
        created_at=batch["created_at"],
        output_file_id=batch.get("output_file_id"),
        error_file_id=batch.get("error_file_id"),
        shard_id=shard_id,
        segments=plan.get("segments", 0),
    )
    event_id = f"{batch['_id']}:{topic}:{shard_id or batch['version']}"
    value = encode(
        id=event_id,
        type=topic,
        source=SOURCE,
        subject=batch["_id"],
        time=at,
        data=data.model_dump(mode="json"),
    )
    return event_id, value
