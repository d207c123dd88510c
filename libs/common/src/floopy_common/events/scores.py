"""Scores as events: `batch.line.scored` for every line, `routing.score.updated` for a model's standing."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from floopy_common.events.envelope import DATA_VERSION, SPEC_VERSION, encode

LINE_SCORED: Final = "batch.line.scored"
ROUTING_SCORE_UPDATED: Final = "routing.score.updated"
SOURCE: Final = "/floopy/scores"


class ScoreStatus(StrEnum):
    """What a line's score row says; a line without a score has a row that says why."""

    SCORED = "scored"
    NOT_APPLICABLE = "not_applicable"
    NOT_IN_PLAN = "not_in_plan"
    ERROR = "error"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class LineCheck(_Model):
    ok: bool
    detail: str | None = Field(description="Why it is not ok; never quotes content.")


class LineScored(_Model):
    """One line of a batch has been scored, or was found not to be scored."""

    source: Literal["batch"] = "batch"
    org_id: str
    batch_id: str
    segment: int = Field(description="Number of the line's segment within the batch, from 0.")
    line_id: str
    line_no: int = Field(description="Physical line of the input, from 1.")
    custom_id: str
    provider: str
    model: str | None = Field(description="The model the request names.")
    status: ScoreStatus
    scorer_version: str
    quality: float | None = Field(ge=0, le=1, description="Weighted share of the checks that hold.")
    checks: dict[str, LineCheck] = Field(description="Verdicts by check; only those that apply.")
    completed_at: datetime = Field(description="When the line's results were complete.")


class LineScoredEvent(_Model):
    """A CloudEvent 1.0 in structured mode."""

    id: str = Field(description="Deterministic: the key to drop repeats by.")
    subject: str = Field(description="The line id.")
    time: datetime = Field(description="When the line's results were complete.")
    data: LineScored
    specversion: Literal["1.0"] = SPEC_VERSION
    type: Literal["batch.line.scored"] = LINE_SCORED
    source: str = SOURCE
    datacontenttype: str = "application/json"
    dataversion: Literal[1] = DATA_VERSION


class RoutingScore(_Model):
    """How well a model has lately served an organisation."""

    org_id: str
    provider: str
    model: str
    version: int = Field(description="Grows with every change of this standing.")
    scorer_version: str
    quality: float = Field(ge=0, le=1, description="Mean quality of the lines it stands for.")
    lines: int = Field(description="Scored lines it stands for.")
    segments: int = Field(description="Latest segments it stands for.")
    updated_at: datetime


class RoutingScoreEvent(_Model):
    """A CloudEvent 1.0 in structured mode; the topic is compacted by organisation, provider and model."""

    id: str = Field(description="Deterministic: the key to drop repeats by.")
    subject: str = Field(description="`org:provider:model`, the record's key.")
    time: datetime
    data: RoutingScore
    specversion: Literal["1.0"] = SPEC_VERSION
    type: Literal["routing.score.updated"] = ROUTING_SCORE_UPDATED
    source: str = SOURCE
    datacontenttype: str = "application/json"
    dataversion: Literal[1] = DATA_VERSION


class _ScoredData(msgspec.Struct, frozen=True, gc=False):
    """`LineScored` as the line plane writes it; a test holds it to the model."""

    source: str
    line_id: str
    org_id: str
    batch_id: str
    segment: int
    line_no: int
    custom_id: str
    provider: str
    model: str | None
    status: str
    scorer_version: str
    quality: float | None
    checks: Mapping[str, Any]
    completed_at: datetime


def scored_event(row: Mapping[str, Any]) -> bytes:
    """The event of a stored score row; a pure function of the row, so repeats are equal bytes.

    No pydantic and no dicts here, because there is one of these for every line.
    """
    line_id, completed_at, version = row["_id"], row["completed_at"], row["scorer_version"]
    data = _ScoredData(
        "batch",
        line_id,
        row["org_id"],
        row["batch_id"],
        row["segment"],
        row["line_no"],
        row["custom_id"],
        row["provider"],
        row["model"],
        row["status"],
        version,
        row["quality"],
        row["checks"],
        completed_at,
    )
    return encode(
        id=f"{line_id}:scored:{version}",
        type=LINE_SCORED,
        source=SOURCE,
        subject=line_id,
        time=completed_at,
        data=data,
    )


def routing_event(score: RoutingScore) -> tuple[str, str, bytes]:
    """(event id, record key, bytes) of one change of a standing."""
    key = routing_key(score.org_id, score.provider, score.model)
    event_id = f"{key}:{score.version}"
    value = encode(
        id=event_id,
        type=ROUTING_SCORE_UPDATED,
        source=SOURCE,
        subject=key,
        time=score.updated_at,
        data=score.model_dump(mode="json"),
    )
    return event_id, key, value


def routing_key(org_id: str, provider: str, model: str) -> str:
    """Only the model may have colons of its own, so it comes last."""
    return f"{org_id}:{provider}:{model}"
