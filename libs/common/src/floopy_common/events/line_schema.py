"""The line event as pydantic models: the source of its published JSON Schema."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from floopy_common.domain.line import LineStatus
from floopy_common.events.envelope import DATA_VERSION, SPEC_VERSION
from floopy_common.events.lines import LINE_COMPLETED, SOURCE, ContentPolicy


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class SegmentRef(_Model):
    """The contiguous range of the batch's lines that was emitted together."""

    no: int = Field(description="Number within the batch, from 0.")
    first_line: int = Field(description="First physical line of the input.")
    last_line: int = Field(description="Last physical line of the input.")
    lines: int = Field(description="Requests in the range (blank lines are none).")


class LineFailure(_Model):
    """Why a line did not succeed, in the words of its error-file line."""

    code: str | None
    message: str | None


class LineUsage(_Model):
    """Tokens the provider reports for the line."""

    input_tokens: int = Field(description="Includes tokens read from a cache and written to one.")
    cached_tokens: int = Field(description="Read from a cache.")
    output_tokens: int = Field(description="Includes reasoning tokens.")
    reasoning_tokens: int
    total_tokens: int
    cache_write_tokens: int = Field(default=0, description="Written to a cache.")


class LineCost(_Model):
    """Computed once, at the prices pinned when the batch was planned."""

    nano_usd: int | None = Field(description="Billionths of a US dollar; null is unknown, 0 is not billed.")
    flag: str | None = Field(description="Why the price is unknown or approximate.")
    price_version: str | None = Field(description="The price table it was computed with.")


class LineTiming(_Model):
    created_at: datetime = Field(description="When the batch was created.")
    submitted_at: datetime | None = Field(description="When the answering provider batch was created.")
    completed_at: datetime = Field(description="When its results were complete.")


class BlobRange(_Model):
    blob: str
    offset: int
    length: int


class Content(_Model):
    """Where the JSON of a body is, and how it begins."""

    blob: str
    offset: int
    length: int
    preview: str | None = Field(description="Beginning of the text; null under the content policy `none`.")
    body: dict[str, Any] | None = Field(default=None, description="The JSON itself, if the policy is inline.")
    continued: tuple[BlobRange, ...] = Field(default=(), description="Rest of a body that spans blobs.")
    unconstrained: bool = Field(
        default=False, description="The request names neither tools nor the form of its answer."
    )


class LineCompleted(_Model):
    """One line of a batch has its outcome."""

    source: Literal["batch"]
    org_id: str
    api_key_id: str | None
    batch_id: str
    segments: int = Field(description="Segments of the whole batch.")
    segment: SegmentRef
    line_id: str
    line_no: int = Field(description="Physical line of the input, from 1.")
    custom_id: str
    provider: str
    model: str | None = Field(description="The model the request names.")
    endpoint: str
    status: LineStatus
    status_code: int | None
    error: LineFailure | None
    finish_reason: str | None
    usage: LineUsage | None
    cost: LineCost
    timing: LineTiming
    session_id: str | None
    content_policy: ContentPolicy
    request: Content
    response: Content | None


class LineEvent(_Model):
    """A CloudEvent 1.0 in structured mode."""

    id: str = Field(description="Deterministic: the key to drop repeats by.")
    subject: str = Field(description="The line id.")
    time: datetime
    data: LineCompleted
    specversion: Literal["1.0"] = SPEC_VERSION
    type: Literal["batch.line.completed"] = LINE_COMPLETED
    source: str = SOURCE
    datacontenttype: str = "application/json"
    dataversion: Literal[1] = DATA_VERSION
