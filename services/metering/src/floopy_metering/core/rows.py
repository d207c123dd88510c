"""A line event as a ledger row."""

from datetime import datetime
from functools import lru_cache

from floopy_common.events.lines import LineCompleted
from floopy_metering.ports import Document


def ledger_row(line: LineCompleted) -> Document:
    """The row; the same event gives the same row, whenever and wherever it is read."""
    usage = line.usage
    completed_at = line.timing.completed_at
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
        "billable": usage is not None,
        "input_tokens": usage.input_tokens if usage else None,
        "cached_tokens": usage.cached_tokens if usage else None,
        "output_tokens": usage.output_tokens if usage else None,
        "reasoning_tokens": usage.reasoning_tokens if usage else None,
        # without usage there is nothing to pay, whatever could not be priced
        "cost_nano_usd": line.cost.nano_usd if usage else 0,
        "cost_flag": line.cost.flag,
        "price_version": line.cost.price_version,
        "completed_at": completed_at,
        "hour": _hour_of(completed_at),
    }


@lru_cache(maxsize=256)
def _hour_of(moment: datetime) -> datetime:
    """Lines whose results came together have their time in common."""
    return moment.replace(minute=0, second=0, microsecond=0)
