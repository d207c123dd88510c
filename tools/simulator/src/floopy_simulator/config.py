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


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything `POST /_sim/config` takes; all durations are seconds of the simulator's clock."""

    batch_seconds: float = 0.5
    auto: bool = True
    cancel_seconds: float | None = 0.2
    """None: a cancelling batch stays there until a test advances it."""
    window_seconds: float = 86400.0
    list_lag: float = 0.0
    count_lag: float = 0.0
    file_list_lag: float = 0.0
    enqueued_token_limit: int | None = None
    max_lines: int = 50_000
    max_file_bytes: int = 200_000_000
    order: Literal["shuffled", "input"] = "shuffled"
    seed: int = 0
    models: tuple[str, ...] = DEFAULT_MODELS
    revoked_keys: tuple[str, ...] = ()


def changed(config: Config, patch: dict[str, Any]) -> Config:
    """`config` with the keys of `patch` replaced; raises msgspec.ValidationError on a bad key or value."""
    return msgspec.convert({**msgspec.structs.asdict(config), **patch}, Config)
