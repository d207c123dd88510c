"""Behaviour of the simulated providers that a test may change while the program runs."""

from typing import Any, Literal

import msgspec

DEFAULT_MODELS = (
    "gpt-4o-mini",
    "gpt-4o",
    "gpt-4.1",
    "gpt-4.1-mini",
    "gpt-4.1-nano",
    "gpt-5",
    "gpt-5-mini",
    "gpt-5-nano",
    "o3",
    "o4-mini",
    "gpt-3.5-turbo",
    "gpt-3.5-turbo-instruct",
    "text-embedding-3-small",
    "text-embedding-3-large",
    "omni-moderation-latest",
)
DEFAULT_ANTHROPIC_MODELS = (
    "claude-mythos-5-2",
    "claude-fable-5-2",
    "claude-haiku-5-5",
    "claude-sonnet-5-5",
    "claude-opus-5-5",
    "claude-mythos-5-1",
    "claude-fable-5-1",
    "claude-opus-5",
    "claude-sonnet-5",
    "claude-mythos-5",
    "claude-fable-5",
    "claude-opus-4-8",
    "claude-opus-4-7",
    "claude-mythos-preview",
    "claude-sonnet-4-6",
    "claude-opus-4-6",
    "claude-opus-4-5",
    "claude-haiku-4-5",
    "claude-sonnet-4-5",
)


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything `POST /_sim/config` takes; all durations are seconds of the simulator's clock."""

    batch_seconds: float = 0.5
    auto: bool = True
    cancel_seconds: float | None = 0.2
    """None: a cancelling batch stays there until a test advances it."""
    cancel_in_flight: int | None = 0
    """Requests of a message batch that still finish after a cancel; None: all of them."""
    window_seconds: float = 86400.0
    list_lag: float = 0.0
    count_lag: float = 0.0
    file_list_lag: float = 0.0
    enqueued_token_limit: int | None = None
    max_lines: int = 50_000
    max_file_bytes: int = 200_000_000
    queued_request_limit: int | None = None
    max_requests: int = 100_000
    max_batch_bytes: int = 256_000_000
    order: Literal["shuffled", "input"] = "shuffled"
    seed: int = 0
    models: tuple[str, ...] = DEFAULT_MODELS
    anthropic_models: tuple[str, ...] = DEFAULT_ANTHROPIC_MODELS
    revoked_keys: tuple[str, ...] = ()


def changed(config: Config, patch: dict[str, Any]) -> Config:
    """`config` with the keys of `patch` replaced; raises msgspec.ValidationError on a bad key or value."""
    return msgspec.convert({**msgspec.structs.asdict(config), **patch}, Config)
