"""Batches as clients see them; `floopy` is the one field OpenAI does not have."""

from typing import Literal

import msgspec


class RequestCounts(msgspec.Struct, frozen=True, kw_only=True):
    total: int
    completed: int
    failed: int


class BatchFault(msgspec.Struct, frozen=True, kw_only=True):
    """A fault of the input; `line` is the physical line, from 1."""

    code: str | None
    line: int | None
    message: str | None
    param: str | None


class BatchFaults(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[BatchFault]


class InputDetails(msgspec.Struct, frozen=True):
    cached_tokens: int


class OutputDetails(msgspec.Struct, frozen=True):
    reasoning_tokens: int


class BatchUsage(msgspec.Struct, frozen=True, kw_only=True):
    """The names of the Responses API, whatever the endpoint."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """Where the first waiting part of a batch stands in its account's line."""

    position: int
    reason: str
    next_attempt_at: int | None


class LineCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The five numbers of the proof, and how many lines were set aside."""

    total: int
    answered: int
    logged: int
    metered: int
    scored: int
    parked: int


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """What we add to OpenAI's object."""

    provider: str
    shards: dict[str, int]
    queue: Queue | None
    lines: LineCounts
    balanced: bool


class BatchObject(msgspec.Struct, frozen=True, kw_only=True):
    """Every key is always present: users test `batch.errors is None`."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: BatchFaults | None
    input_file_id: str
    completion_window: str
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: BatchUsage | None
    metadata: dict[str, str] | None
    floopy: Progress
