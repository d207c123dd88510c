"""A batch as its owner sees it, read from its document without counting anything."""

from floopy_api.core.rules import unix, unix_of
from floopy_api.ports import Document
from floopy_common.domain.batch import BatchStatus
from floopy_common.openai.batches import (
    BatchFault,
    BatchFaults,
    BatchObject,
    BatchUsage,
    InputDetails,
    LineCounts,
    OutputDetails,
    Progress,
    Queue,
    RequestCounts,
)


def to_wire(batch: Document) -> BatchObject:
    return BatchObject(
        id=batch["_id"],
        endpoint=batch["endpoint"],
        model=(batch.get("plan") or {}).get("model"),
        errors=_errors(batch["errors"]),
        input_file_id=batch["input_file_id"],
        completion_window=batch["completion_window"],
        status=batch["status"],
        output_file_id=batch["output_file_id"],
        error_file_id=batch["error_file_id"],
        created_at=unix_of(batch["created_at"]),
        in_progress_at=unix(batch["in_progress_at"]),
        expires_at=unix(batch["expires_at"]),
        finalizing_at=unix(batch["finalizing_at"]),
        completed_at=unix(batch["completed_at"]),
        failed_at=unix(batch["failed_at"]),
        expired_at=unix(batch["expired_at"]),
        cancelling_at=unix(batch["cancelling_at"]),
        cancelled_at=unix(batch["cancelled_at"]),
        request_counts=_request_counts(batch),
        usage=_usage(batch["usage"]),
        metadata=batch["metadata"],
        floopy=_progress(batch),
    )


def _errors(errors: list[Document] | None) -> BatchFaults | None:
    if not errors:
        return None
    return BatchFaults(
        data=[
            BatchFault(
                code=error.get("code"),
                line=error.get("line"),
                message=error.get("message"),
                param=error.get("param"),
            )
            for error in errors
        ]
    )


def _request_counts(batch: Document) -> RequestCounts:
    """Once a batch has ended, what its files hold; before, how far its providers are."""
    total = batch["counts"]["total"]
    terminal = BatchStatus(batch["status"]).is_terminal
    counts = batch["counts"] if terminal else batch["summary"]["counts"]
    return RequestCounts(total=total, completed=counts["completed"], failed=counts["failed"])


def _usage(usage: Document | None) -> BatchUsage | None:
    if usage is None:
        return None
    return BatchUsage(
        input_tokens=usage["input_tokens"],
        input_tokens_details=InputDetails(usage["cached_tokens"]),
        output_tokens=usage["output_tokens"],
        output_tokens_details=OutputDetails(usage["reasoning_tokens"]),
        total_tokens=usage["total_tokens"],
    )


def _progress(batch: Document) -> Progress:
    audit = batch["audit"]
    queue = batch["summary"]["queue"]
    return Progress(
        provider=batch["provider"],
        shards=batch["summary"]["shards"],
        queue=None
        if queue is None
        else Queue(
            position=queue["position"],
            reason=queue["reason"],
            next_attempt_at=unix(queue["next_attempt_at"]),
        ),
        lines=LineCounts(
            total=batch["counts"]["total"],
            answered=audit["answered"],
            logged=audit["logged"],
            metered=audit["metered"],
            scored=audit["scored"],
            parked=audit["parked"],
        ),
        balanced=audit["balanced"],
    )
