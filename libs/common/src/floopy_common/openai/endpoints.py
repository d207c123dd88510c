"""Which batch endpoints each provider takes today."""

COMPLETION_WINDOWS = ("24h",)

SUPPORTED_ENDPOINTS: dict[str, tuple[str, ...]] = {
    "openai": (
        "/v1/chat/completions",
        "/v1/embeddings",
        "/v1/completions",
        "/v1/responses",
        "/v1/moderations",
    ),
    "anthropic": ("/v1/chat/completions",),
}
DEFAULT_PROVIDER = "openai"
"""Whose account a request means that names none: adding another account changes nothing for its sender."""


def all_endpoints() -> tuple[str, ...]:
    """Every endpoint that some provider takes."""
    return tuple(dict.fromkeys(name for names in SUPPORTED_ENDPOINTS.values() for name in names))
