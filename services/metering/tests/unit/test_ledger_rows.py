"""What a ledger row says of usage and cost."""

import msgspec
from floopy_sinks.lines import COMPLETED, failed, make_segment

from floopy_common.domain.line import LineStatus
from floopy_common.events.lines import LineCost
from floopy_metering.core.rows import ledger_row


def test_a_line_with_usage_is_billable_at_the_cost_it_came_with() -> None:
    (line,) = make_segment("batch_1", 1)

    row = ledger_row(line)

    assert (row["billable"], row["cost_nano_usd"], row["price_version"]) == (True, 1_001, "genai-prices==1")
    assert (row["input_tokens"], row["cached_tokens"]) == (101, 10)
    assert (row["output_tokens"], row["reasoning_tokens"]) == (20, 5)
    assert row["hour"] == COMPLETED.replace(minute=0, second=0, microsecond=0)


def test_a_line_without_usage_is_not_billable_and_costs_nothing() -> None:
    (line,) = make_segment("batch_1", 1)

    for status in (LineStatus.FAILED, LineStatus.CANCELLED, LineStatus.EXPIRED):
        row = ledger_row(failed(line, status))
        assert (row["status"], row["billable"], row["cost_nano_usd"]) == (status.value, False, 0)
        assert row["input_tokens"] is row["output_tokens"] is None


def test_an_unknown_price_stays_unknown() -> None:
    (line,) = make_segment("batch_1", 1)

    row = ledger_row(msgspec.structs.replace(line, cost=LineCost(None, "pricing_missing", "v")))

    assert (row["billable"], row["cost_nano_usd"], row["cost_flag"]) == (True, None, "pricing_missing")
