"""Money and tokens: integer nano-USD, computed once per line from rates pinned at plan time."""

from decimal import ROUND_HALF_UP, Decimal

import msgspec

NANO_PER_USD = 1_000_000_000
TOKENS_PER_MTOK = 1_000_000


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens of one line; `input_tokens` includes those read from a cache and written to one.

    `output_tokens` includes reasoning.
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


class Rates(msgspec.Struct, frozen=True, gc=False):
    """Nano-USD per million tokens of one (provider, model, tier); a null rate is unknown, never free."""

    input_nano: int | None
    cached_nano: int | None
    output_nano: int | None
    flag: str | None = None
    cache_write_nano: int | None = None


class Cost(msgspec.Struct, frozen=True, gc=False):
    """`nano_usd` is null exactly when `flag` says why no honest price exists."""

    nano_usd: int | None
    flag: str | None = None


def nano_per_mtok(usd_per_mtok: Decimal) -> int:
    """Nano-USD per million tokens of a published USD price per million tokens."""
    return int((usd_per_mtok * NANO_PER_USD).to_integral_value(ROUND_HALF_UP))


def cost_of(usage: Usage, rates: Rates | None) -> Cost:
    """The line's cost, rounded half up to one nano-USD."""
    if rates is None:
        return Cost(None, "pricing_missing")
    written = usage.cache_write_tokens
    fresh = usage.input_tokens - usage.cached_tokens - written
    if min(fresh, written, usage.input_tokens, usage.output_tokens) < 0:
        return Cost(None, "usage_inconsistent")
    # an embeddings model has no output and so no price of it
    if rates.input_nano is None or (rates.output_nano is None and usage.output_tokens):
        return Cost(None, rates.flag or "pricing_missing")
    if written and rates.cache_write_nano is None:
        # writing to a cache costs more than reading afresh, so no other rate may stand in
        return Cost(None, "pricing_missing")
    cached_rate = rates.input_nano if rates.cached_nano is None else rates.cached_nano
    scaled = (
        fresh * rates.input_nano
        + usage.cached_tokens * cached_rate
        + written * (rates.cache_write_nano or 0)
        + usage.output_tokens * (rates.output_nano or 0)
    )
    return Cost((scaled + TOKENS_PER_MTOK // 2) // TOKENS_PER_MTOK, rates.flag)
