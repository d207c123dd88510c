"""Batch rates: published where the table has them, else half of list, never made up and never zero."""

import socket
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage as ListUsage
from genai_prices import calc_price
from genai_prices.data import providers

from floopy_common.domain.money import Rates, Usage, cost_of, nano_per_mtok
from floopy_common.providers.pricing import HALF, MISSING, PriceTable, price_version

NOW = datetime(2026, 11, 25, tzinfo=UTC)
BEFORE_BATCH_PRICES = datetime(2026, 10, 1, tzinfo=UTC)


def test_a_published_batch_price_needs_no_flag() -> None:
    rates = PriceTable().batch_rates("openai", "gpt-4o-mini", NOW)

    assert rates == Rates(75_000_000, 75_000_000, 300_000_000, None)


def test_a_dated_snapshot_has_the_price_of_its_model() -> None:
    table = PriceTable()

    assert table.batch_rates("openai", "gpt-4o-mini-2024-07-18", NOW) == table.batch_rates(
        "openai", "gpt-4o-mini", NOW
    )


def test_without_a_batch_price_it_is_half_of_list_and_says_so() -> None:
    rates = PriceTable().batch_rates("openai", "gpt-4o-mini", BEFORE_BATCH_PRICES)

    assert rates == Rates(75_000_000, 75_000_000, 300_000_000, HALF)


def test_anthropic_halves_cached_input_too() -> None:
    model = "claude-3-5-haiku-latest"
    table = PriceTable()
    [known] = [provider for provider in providers if provider.id == "anthropic"]
    found = known.find_model(model)
    assert found is not None
    prices = found.get_prices(BEFORE_BATCH_PRICES)

    rates = table.batch_rates("anthropic", model, BEFORE_BATCH_PRICES)

    assert isinstance(prices.cache_read_mtok, Decimal)
    assert rates.cached_nano == nano_per_mtok(prices.cache_read_mtok) // 2
    assert rates.flag == HALF


@pytest.mark.parametrize(
    ("provider", "model"),
    [("openai", "no-such-model"), ("openai", ""), ("nobody", "gpt-4o"), ("groq", "llama-3.1-8b-instant")],
)
def test_an_unknown_price_is_null_with_a_flag(provider: str, model: str) -> None:
    rates = PriceTable().batch_rates(provider, model, NOW)

    assert rates == Rates(None, None, None, MISSING)


def test_a_model_priced_by_the_minute_has_no_token_price() -> None:
    assert PriceTable().batch_rates("openai", "whisper-1", NOW) == Rates(None, None, None, MISSING)


def test_a_tiered_price_is_its_first_tier_and_says_so() -> None:
    rates = PriceTable().batch_rates("openai", "gpt-5.4", NOW)

    assert rates.flag is not None
    assert "tiered" in rates.flag.split(",")
    assert rates.input_nano is not None
    assert rates.input_nano <= nano_per_mtok(Decimal("2.5"))


def test_a_model_without_output_has_no_output_price() -> None:
    rates = PriceTable().batch_rates("openai", "text-embedding-3-small", NOW)

    assert rates == Rates(10_000_000, None, None, HALF)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_no_model_of_the_table_is_free(provider: str) -> None:
    table = PriceTable()
    [known] = [each for each in providers if each.id == provider]

    for model in known.models:
        rates = table.batch_rates(provider, model.id, NOW)
        assert 0 not in {rates.input_nano, rates.output_nano}, model.id
        assert (rates.input_nano is None) == (rates.flag == MISSING), model.id


def test_our_cost_is_the_tables_own_to_a_nano_dollar() -> None:
    usage = Usage(input_tokens=12_345, output_tokens=678, cached_tokens=2_000)
    theirs = calc_price(
        ListUsage(input_tokens=12_345, output_tokens=678, cache_read_tokens=2_000),
        "gpt-4o-mini",
        provider_id="openai",
        genai_request_timestamp=NOW,
        price_context={"processing": "batch"},
    ).total_price

    ours = cost_of(usage, PriceTable().batch_rates("openai", "gpt-4o-mini", NOW)).nano_usd

    assert ours is not None
    assert abs(Decimal(ours) - theirs * 10**9) <= Decimal("0.5")


def test_the_version_names_the_table() -> None:
    assert price_version().startswith("genai-prices-")
    assert PriceTable().version == price_version()


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("prices come with the package")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)

    assert PriceTable().batch_rates("openai", "gpt-4o", NOW).input_nano is not None
