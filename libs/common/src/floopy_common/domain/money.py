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
    tokens_in, tokens_out = usage.input_tokens, usage.output_tokens
    cached, written = usage.cached_tokens, usage.cache_write_tokens
    fresh = tokens_in - cached - written
    if fresh < 0 or written < 0 or tokens_in < 0 or tokens_out < 0:
        return Cost(None, "usage_inconsistent")
    rate_in, rate_out = rates.input_nano, rates.output_nano
    # an embeddings model has no output and so no price of it
    if rate_in is None or (rate_out is None and tokens_out):
        return Cost(None, rates.flag or "pricing_missing")
    scaled = fresh * rate_in + tokens_out * (rate_out or 0)
    if cached:
        scaled += cached * (rate_in if rates.cached_nano is None else rates.cached_nano)
    if written:
        if rates.cache_write_nano is None:
            # writing to a cache costs more than reading afresh, so no other rate may stand in
            return Cost(None, "pricing_missing")
        scaled += written * rates.cache_write_nano
    return Cost((scaled + TOKENS_PER_MTOK // 2) // TOKENS_PER_MTOK, rates.flag)
