"""Prices of batch traffic: looked up once per model in the price table that comes with genai-prices.

The table is the installed package's; nothing is ever fetched. A rate's `flag` says how good it is:

    (none)               the provider's published batch price
    batch_half_of_list   half of the list price, as both providers promise: the table has no batch price
    tiered               the price below the first threshold; a line with more input tokens costs more
    batch_half_of_list,tiered   both
    pricing_missing      no price is known; the rates are null
"""

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from importlib.metadata import version

from genai_prices.data import providers
from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

from floopy_common.domain.money import Rates, nano_per_mtok

HALF = "batch_half_of_list"
TIERED = "tiered"
MISSING = "pricing_missing"

_PACKAGE = "genai-prices"
_BATCH = {"processing": "batch"}
_HALF_PRICE = frozenset({"openai", "anthropic"})
"""Who promises batches at half of the list price."""
_CACHED_AT_LIST = frozenset({"openai"})
"""Whose batches pay cached input at the list price, unless half of the price of fresh input is less."""
_HALF_OF = Decimal("0.5")
_FINE_TUNED = re.compile(r"^ft:|\.ft-")
"""Rows that stand for everybody's own models, whose names nobody else has."""


class PriceTable:
    """Rates by provider and model, as of a moment: tables say when a price began."""

    def __init__(self) -> None:
        self._providers = {provider.id: provider for provider in providers}

    @property
    def version(self) -> str:
        """Names the table, so that a cost can be worked out again."""
        return price_version()

    def batch_rates(self, provider: str, model: str, at: datetime) -> Rates:
        """What a batch line costs; null rates with a flag where that is not known."""
        known = self._providers.get(provider)
        found = None if known is None else known.find_model(model)
        if found is None:
            return Rates(None, None, None, MISSING)
        if _has_batch_price(found, at):
            return _to_rates(found.get_prices(at, _BATCH), None)
        if provider not in _HALF_PRICE:
            return Rates(None, None, None, MISSING)
        return _halved(_to_rates(found.get_prices(at), HALF), cached_at_list=provider in _CACHED_AT_LIST)

    def batch_models(self, provider: str, at: datetime) -> list[str]:
        """Ids of the models the provider batches, by name, without patterns for fine-tuned ones."""
        known = self._providers.get(provider)
        models = () if known is None else known.models
        return sorted(
            model.id for model in models if not _FINE_TUNED.search(model.id) and _is_batched(model, at)
        )

    def is_batched(self, provider: str, model: str, at: datetime) -> bool:
        """Whether the provider batches what this name stands for: a model, a snapshot, a fine-tuned one."""
        known = self._providers.get(provider)
        found = None if known is None else known.find_model(model)
        return found is not None and _is_batched(found, at)


def price_version() -> str:
    """The installed price table."""
    return f"{_PACKAGE}-{version(_PACKAGE)}"


def _is_batched(model: ModelInfo, at: datetime) -> bool:
    """Whether there is a price for batches, or for input alone: embeddings have no batch price in the table.

    Models that make images have batch prices too, for endpoints that no batch here takes.
    """
    prices = model.get_prices(at)
    embeds = prices.input_mtok is not None and prices.output_mtok is None
    return prices.input_image_mtok is None and (embeds or _has_batch_price(model, at))


def _has_batch_price(model: ModelInfo, at: datetime) -> bool:
    return any(
        _matches(variant.when) and (variant.constraint is None or variant.constraint.active(at))
        for variant in model.price_variants or ()
    )


def _matches(when: Mapping[str, str]) -> bool:
    return all(_BATCH.get(key) == value for key, value in when.items())


def _to_rates(prices: ModelPrice, flag: str | None) -> Rates:
    """Nano-USD of one model; a model that has no price for input is one whose price is not known."""
    fresh, cached, output = prices.input_mtok, prices.cache_read_mtok, prices.output_mtok
    # what is written to a cache on our word is written for an hour where there is a choice
    written = prices.cache_write_mtok if prices.cache_write_1h_mtok is None else prices.cache_write_1h_mtok
    if fresh is None:
        return Rates(None, None, None, MISSING)
    tiered = any(isinstance(price, TieredPrices) for price in (fresh, cached, output))
    flags = ",".join(part for part in (flag, TIERED if tiered else None) if part)
    return Rates(_nano(fresh), _nano(cached), _nano(output), flags or None, _nano(written))


def _nano(price: Decimal | TieredPrices | None) -> int | None:
    base = price.base if isinstance(price, TieredPrices) else price
    return None if base is None else nano_per_mtok(base)


def _halved(rates: Rates, *, cached_at_list: bool) -> Rates:
    half_input = _half(rates.input_nano)
    cached, written = rates.cached_nano, rates.cache_write_nano
    if not cached_at_list:
        cached, written = _half(cached), _half(written)
    elif cached is not None and half_input is not None:
        cached = min(cached, half_input)
    return Rates(half_input, cached, _half(rates.output_nano), rates.flag, written)


def _half(nano: int | None) -> int | None:
    return None if nano is None else int((nano * _HALF_OF).to_integral_value())
