"""Which models can be batched, by provider."""

from datetime import UTC, datetime

import pytest

from floopy_common.providers.models import BatchModels
from floopy_common.providers.pricing import PriceTable
from floopy_common.settings import AnthropicModelSettings

NOW = datetime(2026, 11, 25, tzinfo=UTC)


@pytest.fixture(scope="module")
def models() -> BatchModels:
    return BatchModels(PriceTable(), {"house-model": AnthropicModelSettings(id="claude-sonnet-5")})


def test_openais_are_those_with_a_price_for_batches_and_embeddings(models: BatchModels) -> None:
    listed = models.list("openai", NOW)

    assert listed == sorted(set(listed))
    assert {"gpt-4o-mini", "gpt-5", "o3", "text-embedding-3-small"} <= set(listed)
    assert not {"gpt-image-1", "whisper-1", "gpt-realtime", "gpt-oss-20b", "moderation"} & set(listed)


def test_rows_for_fine_tuned_models_are_not_models(models: BatchModels) -> None:
    assert not [name for name in models.list("openai", NOW) if "ft" in name]
    assert models.knows("openai", "ft:gpt-4o-mini-2024-07-18:acme::abc", NOW)


def test_all_that_is_listed_is_known(models: BatchModels) -> None:
    for provider in ("openai", "anthropic"):
        assert all(models.knows(provider, name, NOW) for name in models.list(provider, NOW))


def test_an_operators_own_names_are_listed(models: BatchModels) -> None:
    assert {"claude-haiku-4-5", "house-model"} <= set(models.list("anthropic", NOW))


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("claude-haiku-4-5-20251001", True),
        ("claude-haiku-4-5-latest", True),
        ("anthropic/claude-sonnet-5", True),
        ("anthropic/house-model", True),
        ("claude-unheard-of", False),
        ("claude-haiku-4-5-20251001-x", False),
        ("gpt-4o-mini", False),
        ("", False),
    ],
)
def test_snapshots_are_known_and_strangers_are_not(models: BatchModels, name: str, *, known: bool) -> None:
    assert models.knows("anthropic", name, NOW) is known


def said_of(model: str, **more: object) -> dict[str, object]:
    return {"id": model, "capabilities": {"batch": {"supported": True}}, **more}


def test_what_the_models_api_says_is_listed_and_known(models: BatchModels) -> None:
    said = [said_of("claude-six-20270101"), said_of("claude-old", retired=True), said_of("claude-opus-5")]

    listed = models.list("anthropic", NOW, said)

    assert listed == ["claude-opus-5", "claude-six", "claude-six-20270101", "house-model"]
    assert all(models.knows("anthropic", name, NOW, said) for name in listed)
    assert not models.knows("anthropic", "claude-old", NOW, said)
    assert not models.knows("anthropic", "claude-six", NOW)


def test_a_provider_without_a_table_has_none(models: BatchModels) -> None:
    assert models.list("nobody", NOW) == []
    assert not models.knows("nobody", "gpt-4o-mini", NOW)
