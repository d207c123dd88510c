"""Costs are exact integers, and an unknown price is never zero."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from floopy_common.domain.money import Cost, Rates, Usage, cost_of, nano_per_mtok

_MINI = Rates(
    input_nano=nano_per_mtok(Decimal("0.075")),
    cached_nano=nano_per_mtok(Decimal("0.0375")),
    output_nano=nano_per_mtok(Decimal("0.3")),
)


def test_cost_counts_cached_tokens_at_their_own_rate() -> None:
    usage = Usage(input_tokens=1_000, cached_tokens=400, output_tokens=10)

    assert cost_of(usage, _MINI) == Cost(600 * 75 + 400 * 375 // 10 + 10 * 300)


def test_unknown_price_is_null_and_flagged() -> None:
    assert cost_of(Usage(1, 1), None) == Cost(None, "pricing_missing")
    assert cost_of(Usage(1, 1), Rates(None, None, None, "tiered")) == Cost(None, "tiered")


def test_a_model_without_output_needs_no_price_of_it() -> None:
    embeddings = Rates(input_nano=10_000_000, cached_nano=None, output_nano=None)

    assert cost_of(Usage(input_tokens=1_000, output_tokens=0), embeddings) == Cost(10_000)
    assert cost_of(Usage(input_tokens=1_000, output_tokens=1), embeddings) == Cost(None, "pricing_missing")


def test_more_cached_than_input_tokens_has_no_honest_price() -> None:
    assert (
        cost_of(Usage(input_tokens=1, cached_tokens=2, output_tokens=0), _MINI).flag == "usage_inconsistent"
    )


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.data())
def test_cost_is_the_exact_amount_rounded_half_up(
    tokens_in: int, tokens_out: int, data: st.DataObject
) -> None:
    cached = data.draw(st.integers(0, tokens_in))

    cost = cost_of(Usage(tokens_in, tokens_out, cached_tokens=cached), _MINI)

    exact = Decimal(tokens_in - cached) * 75 + Decimal(cached) * Decimal("37.5") + Decimal(tokens_out) * 300
    assert cost.nano_usd is not None
    assert abs(Decimal(cost.nano_usd) - exact) <= Decimal("0.5")
