"""OpenAI's batch and error objects as they come over the wire, read leniently and turned into the port's."""

from datetime import UTC, datetime

import msgspec

from floopy_common.providers.port import BatchFault, ProviderBatch, ProviderStatus

ATTEMPT_KEY = "floopy_attempt"
NONCE_KEY = "floopy_nonce"
MAX_METADATA = 16


class _Faults(msgspec.Struct):
    data: tuple[BatchFault, ...] | None = None


class _Counts(msgspec.Struct):
    total: int | None = None
    completed: int | None = None
    failed: int | None = None


class Batch(msgspec.Struct):
    """What we read of a batch; an unknown status is no batch of ours."""

    id: str
    status: ProviderStatus
    created_at: float
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    model: str | None = None
    request_counts: _Counts | None = None
    metadata: dict[str, object] | None = None
    errors: _Faults | None = None


class BatchPage(msgspec.Struct):
    data: list[Batch]
    has_more: bool = True
    """Servers that leave it out are asked until a page is empty."""


class File(msgspec.Struct):
    id: str


def to_port(batch: Batch) -> ProviderBatch:
    """Raises ValueError for a moment that is none."""
    counts = batch.request_counts or _Counts()
    return ProviderBatch(
        id=batch.id,
        status=batch.status,
        created_at=_moment(batch.created_at),
        total=counts.total or 0,
        completed=counts.completed or 0,
        failed=counts.failed or 0,
        input_file_id=batch.input_file_id,
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
        model=batch.model,
        metadata={key: value for key, value in (batch.metadata or {}).items() if isinstance(value, str)},
        errors=(batch.errors.data if batch.errors else None) or (),
    )


def _moment(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError) as error:
        raise ValueError(f"{seconds} is no moment") from error


def metadata_of(attempt_id: str, nonce: str, more: dict[str, str] | None) -> dict[str, str]:
    """The two keys by which an attempt is recognised, and as many others as there is room for."""
    room = MAX_METADATA - 2
    others = [(key, value) for key, value in (more or {}).items() if key not in {ATTEMPT_KEY, NONCE_KEY}]
    return {**dict(others[:room]), ATTEMPT_KEY: attempt_id, NONCE_KEY: nonce}
