"""The line event as the line plane handles it: msgspec structs, one decode or encode per event.

`line_schema.py` holds the same event as pydantic models, from which the published schema is made; a test
keeps the two equal.
"""

from datetime import datetime
from typing import Final, Literal

import msgspec

from floopy_common.domain.errors import Invalid
from floopy_common.domain.line import LineStatus
from floopy_common.domain.money import Usage
from floopy_common.events.envelope import DATA_VERSION, SPEC_VERSION

LINE_COMPLETED: Final = "batch.line.completed"
SOURCE: Final = "/floopy/batches"
MAX_EVENT_BYTES = 256 * 1024
"""With bodies inside, an event stays below this; else it only refers to them."""

ContentPolicy = Literal["reference", "inline", "none"]


class SegmentRef(msgspec.Struct, frozen=True, gc=False):
    """The segment a line belongs to; `lines` of its physical lines are requests."""

    no: int
    first_line: int
    last_line: int
    lines: int


class LineFailure(msgspec.Struct, frozen=True, gc=False):
    """Why a line did not succeed, in the words of its error-file line."""

    code: str | None
    message: str | None


class LineUsage(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """`input_tokens` includes what was read from a cache and written to one, `output_tokens` reasoning."""

    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    total_tokens: int
    cache_write_tokens: int = 0


class LineCost(msgspec.Struct, frozen=True, gc=False):
    """What the line costs; `nano_usd` null means unknown and `flag` says why, 0 means nothing is billed."""

    nano_usd: int | None
    flag: str | None
    price_version: str | None


class LineTiming(msgspec.Struct, frozen=True, gc=False):
    """When the batch was created, the answering provider batch submitted, and its results complete."""

    created_at: datetime
    submitted_at: datetime | None
    completed_at: datetime


class BlobRange(msgspec.Struct, frozen=True, gc=False):
    blob: str
    offset: int
    length: int


class Content(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Where the JSON of one body is: `length` bytes at `offset` of `blob`.

    A request's body lies in the input, a response's in a part of the output or error file, so a run of
    lines is contiguous in both. `continued` has the rest of a body that crosses the border of two blobs.
    `preview` is the beginning of its text (null under the content policy `none`), `body` the JSON itself
    (content policy `inline` only). `unconstrained`: the request names neither tools nor the form of its
    answer, so an answer is judged without it; not said of responses.
    """

    blob: str
    offset: int
    length: int
    preview: str | None
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    continued: tuple[BlobRange, ...] = ()
    unconstrained: bool = False


class LineCompleted(msgspec.Struct, frozen=True, gc=False):
    """Data of `batch.line.completed`: one line has its outcome."""

    source: Literal["batch"]
    org_id: str
    api_key_id: str | None
    batch_id: str
    segments: int
    segment: SegmentRef
    line_id: str
    line_no: int
    custom_id: str
    provider: str
    model: str | None
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


class LineEvent(msgspec.Struct, frozen=True, gc=False):
    """The CloudEvent around it; `id` is the key to drop repeats by."""

    id: str
    subject: str
    time: datetime
    data: LineCompleted
    specversion: Literal["1.0"] = SPEC_VERSION
    type: Literal["batch.line.completed"] = LINE_COMPLETED
    source: str = SOURCE
    datacontenttype: str = "application/json"
    dataversion: Literal[1] = DATA_VERSION


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(LineEvent)


def event_id(line_id: str) -> str:
    return f"{line_id}:completed"


def line_event(data: LineCompleted, time: datetime) -> LineEvent:
    """The event of one line; the same arguments give the same bytes."""
    return LineEvent(id=event_id(data.line_id), subject=data.line_id, time=time, data=data)


def encode_line(event: LineEvent) -> bytes:
    return _encoder.encode(event)


def decode_line(value: bytes) -> LineEvent:
    """Raises Invalid for anything but a line event of this major version."""
    try:
        return _decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"not a line event: {error}") from error


def to_line_usage(usage: Usage) -> LineUsage:
    return LineUsage(
        usage.input_tokens,
        usage.cached_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        usage.total_tokens,
        usage.cache_write_tokens,
    )
