"""Metrics of the submitter; no organisation and no batch is ever a label."""

from prometheus_client import Counter, Gauge, Histogram

MOVES = Counter("floopy_shard_moves_total", "Shards by the state the submitter moved them to.", ["to"])
AMBIGUOUS = Counter(
    "floopy_submit_ambiguous_total",
    "Creates whose outcome was unknown, by what became of them; orphan_*: a provider batch nobody wanted.",
    ["provider", "resolution"],
)
BLOCKED = Counter(
    "floopy_account_blocked_total",
    "Creates that a provider refused until somebody sees to the account: its bill or its spending limit.",
    ["provider"],
)
MODELS = Counter(
    "floopy_provider_models_total",
    "Times an account's models were not known: fetched from the provider, read as stored, or failed to be.",
    ["outcome"],
)
LEFT_ALONE = Counter(
    "floopy_submits_quarantined_total", "Times a shard was left alone because its submitters die of it."
)
SUBMIT_SECONDS = Histogram(
    "floopy_submit_seconds",
    "Seconds from the claim of a shard to its recorded provider batch.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
WAITING = Gauge("floopy_shards_waiting", "Shards held back, by reason.", ["reason"])


class SubmitReport:
    """What the core reports, as metrics."""

    def moved(self, to: str) -> None:
        MOVES.labels(to).inc()

    def submitted(self, seconds: float) -> None:
        SUBMIT_SECONDS.observe(seconds)

    def resolved(self, provider: str, resolution: str) -> None:
        AMBIGUOUS.labels(provider, resolution).inc()

    def blocked(self, provider: str) -> None:
        BLOCKED.labels(provider).inc()

    def left_alone(self) -> None:
        LEFT_ALONE.inc()

    def models(self, outcome: str) -> None:
        MODELS.labels(outcome).inc()
