"""Writing to a cache has a price of its own: dearer than reading afresh, and unknown rather than guessed."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floopy_common.domain.money import Cost, Rates, Usage, cost_of, nano_per_mtok
from floopy_common.providers.anthropic.capabilities import ROWS
from floopy_common.providers.pricing import PriceTable

NOW = datetime(2026, 11, 25, tzinfo=UTC)
RATES = Rates(500, 50, 2_500, None, 1_000)
UNWRITTEN = {"claude-mythos-preview", "claude-mythos-5", "claude-mythos-5-1"}
"""Models that the price table does not have."""


def test_each_kind_of_input_is_priced_at_its_own_rate() -> None:
    usage = Usage(10_000_000, 1_000_000, cached_tokens=2_000_000, cache_write_tokens=3_000_000)

    assert cost_of(usage, RATES) == Cost(5 * 500 + 2 * 50 + 3 * 1_000 + 2_500)


def test_a_write_without_a_known_price_makes_the_line_unpriced() -> None:
    unknown = Rates(500, 50, 2_500)

    assert cost_of(Usage(10, 1, cache_write_tokens=1), unknown) == Cost(None, "pricing_missing")
    assert cost_of(Usage(10, 1), unknown).nano_usd is not None


@pytest.mark.parametrize(("cached", "written"), [(6, 5), (0, 11), (0, -1), (11, -1)])
def test_more_cached_than_there_was_is_inconsistent(cached: int, written: int) -> None:
    usage = Usage(10, 1, cached_tokens=cached, cache_write_tokens=written)

    assert cost_of(usage, RATES) == Cost(None, "usage_inconsistent")


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_write_never_costs_less_than_reading_afresh(fresh: int, written: int, out: int) -> None:
    usage = Usage(fresh + written, out, cache_write_tokens=written)

    cost, plain = cost_of(usage, RATES), cost_of(Usage(fresh + written, out), RATES)

    assert cost.nano_usd is not None
    assert plain.nano_usd is not None
    assert cost.nano_usd >= plain.nano_usd


@pytest.mark.parametrize("model", sorted(set(ROWS) - UNWRITTEN))
def test_anthropics_writes_cost_twice_the_batch_input_price(model: str) -> None:
    rates = PriceTable().batch_rates("anthropic", model, NOW)

    assert rates.input_nano is not None
    assert rates.cache_write_nano == 2 * rates.input_nano


def test_the_price_is_the_published_one_halved() -> None:
    rates = PriceTable().batch_rates("anthropic", "claude-haiku-4-5", NOW)

    assert (rates.input_nano, rates.cache_write_nano) == (
        nano_per_mtok(Decimal("0.5")),
        nano_per_mtok(Decimal(1)),
    )
