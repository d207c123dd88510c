"""A line event as a row of the request log: references and previews, never bodies."""

from floopy_common.events.lines import Content, LineCompleted
from floopy_logging.ports import Document


def request_row(line: LineCompleted) -> Document:
    """The row; the same event gives the same row, whenever and wherever it is read."""
    usage, error = line.usage, line.error
    return {
        "_id": line.line_id,
        "org_id": line.org_id,
        "api_key_id": line.api_key_id,
        "batch_id": line.batch_id,
        "segment": line.segment.no,
        "line_no": line.line_no,
        "custom_id": line.custom_id,
        "session_id": line.session_id,
        "provider": line.provider,
        "model": line.model,
        "endpoint": line.endpoint,
        "status": line.status.value,
        "status_code": line.status_code,
        "error": None if error is None else {"code": error.code, "message": error.message},
        "finish_reason": line.finish_reason,
        "usage": None
        if usage is None
        else {
            "input_tokens": usage.input_tokens,
            "cached_tokens": usage.cached_tokens,
            "output_tokens": usage.output_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "total_tokens": usage.total_tokens,
        },
        "cost_nano_usd": line.cost.nano_usd,
        "cost_flag": line.cost.flag,
        "created_at": line.timing.created_at,
        "submitted_at": line.timing.submitted_at,
        "completed_at": line.timing.completed_at,
        "content_policy": line.content_policy,
        "request": _reference(line.request),
        "response": None if line.response is None else _reference(line.response),
    }


def _reference(content: Content) -> Document:
    """Where the body is and how it begins; `continued` only where it crosses the border of two blobs."""
    reference: Document = {
        "blob": content.blob,
        "offset": content.offset,
        "length": content.length,
        "preview": content.preview,
    }
    if content.continued:
        reference["continued"] = [
            {"blob": rest.blob, "offset": rest.offset, "length": rest.length} for rest in content.continued
        ]
    return reference
