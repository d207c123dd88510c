"""Usage as an event: `usage.recorded`, a finished batch's totals."""

from datetime import datetime
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from floopy_common.events.envelope import encode

USAGE_RECORDED: Final = "usage.recorded"
SOURCE: Final = "/floopy/usage"


class UsageRecorded(BaseModel):
    """Every line of a batch is in the ledger; these are its sums."""

    model_config = ConfigDict(frozen=True)

    batch_id: str
    org_id: str
    month: str = Field(description="The month the lines count for, `yyyymm` in UTC.")
    revision: int = Field(
        ge=1, description="From 1; a higher one replaces a lower one: a parked line was replayed."
    )
    lines: int = Field(description="Lines in the ledger, whatever their outcome.")
    failed: int = Field(description="Lines without a successful answer.")
    not_run: int = Field(description="Failed lines that no provider ran: cancelled or expired.")
    billable: int = Field(description="Lines with usage.")
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_nano_usd: int = Field(description="Billionths of a US dollar, over the lines with a known price.")
    unpriced: int = Field(description="Billable lines whose price is unknown.")


def usage_event(usage: UsageRecorded, at: datetime) -> tuple[str, bytes]:
    """(event id, bytes); the id is the same for the same revision."""
    event_id = f"{usage.batch_id}:{USAGE_RECORDED}:{usage.revision}"
    value = encode(
        id=event_id,
        type=USAGE_RECORDED,
        source=SOURCE,
        subject=usage.batch_id,
        time=at,
        data=usage.model_dump(mode="json"),
    )
    return event_id, value
