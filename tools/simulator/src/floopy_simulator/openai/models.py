"""Which models exist, what they resolve to and which endpoints they serve."""

SNAPSHOTS = {
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "gpt-4.1-nano": "gpt-4.1-nano-2025-04-14",
    "gpt-5": "gpt-5-2025-08-07",
    "gpt-5-mini": "gpt-5-mini-2025-08-07",
    "gpt-5-nano": "gpt-5-nano-2025-08-07",
    "o3": "o3-2025-04-16",
    "o4-mini": "o4-mini-2025-04-16",
    "gpt-3.5-turbo": "gpt-3.5-turbo-0125",
}
ALIASES = {snapshot: alias for alias, snapshot in SNAPSHOTS.items()}
PUBLISHED_AT = 1_721_172_741


def is_known(model: str, models: tuple[str, ...]) -> bool:
    """Aliases, their dated snapshots and fine-tunes of either are known."""
    base = model.split(":")[1] if model.startswith("ft:") and ":" in model[3:] else model
    return base in models or ALIASES.get(base, base) in models


def resolve(model: str) -> str:
    """The dated snapshot an alias stands for; anything else is itself."""
    return SNAPSHOTS.get(model, model)


def is_reasoning(model: str) -> bool:
    return model.startswith(("o1", "o3", "o4", "gpt-5"))


def serves(model: str, endpoint: str) -> bool:
    if model.startswith("text-embedding"):
        return endpoint == "/v1/embeddings"
    if model.startswith("omni-moderation"):
        return endpoint == "/v1/moderations"
    if model.endswith("-instruct"):
        return endpoint == "/v1/completions"
    return endpoint in {"/v1/chat/completions", "/v1/responses"}


def to_wire(model: str) -> dict[str, object]:
    return {"id": model, "object": "model", "created": PUBLISHED_AT, "owned_by": "system"}


def list_ids(models: tuple[str, ...]) -> list[str]:
    return [name for model in models for name in dict.fromkeys((model, resolve(model)))]
