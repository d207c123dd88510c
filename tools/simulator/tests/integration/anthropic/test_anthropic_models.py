"""The Models API."""

import anthropic
import pytest


def test_a_model_publishes_its_limits_and_capabilities(claude):
    model = claude.client.models.retrieve("claude-sonnet-5-5")

    thinking = model.capabilities.thinking.types
    assert (model.max_input_tokens, model.max_tokens) == (1_000_000, 128_000)
    assert (thinking.adaptive.supported, thinking.between_tools.supported) == (True, True)
    assert (thinking.disabled.supported, thinking.enabled.supported) == (False, False)
    assert model.capabilities.effort.xhigh.supported
    assert model.capabilities.batch.supported
    assert model.capabilities.structured_outputs.supported


def test_an_older_model_has_smaller_ones(claude):
    model = claude.client.models.retrieve("claude-haiku-4-5")

    assert (model.id, model.max_input_tokens, model.max_tokens) == (
        "claude-haiku-4-5-20251001",
        200_000,
        64_000,
    )
    assert not model.capabilities.effort.supported
    assert model.capabilities.thinking.types.enabled.supported
    assert not model.capabilities.thinking.types.adaptive.supported


def test_models_are_listed_newest_first_in_pages(claude):
    models = list(claude.client.models.list(limit=5))

    assert len(models) == 19
    assert [model.created_at for model in models] == sorted((m.created_at for m in models), reverse=True)
    assert {model.type for model in models} == {"model"}


def test_only_configured_models_exist(claude, sim, params):
    sim.configure(anthropic_models=["claude-opus-5"])

    assert [model.id for model in claude.client.models.list()] == ["claude-opus-5"]
    with pytest.raises(anthropic.NotFoundError, match="model: claude-opus-4-8"):
        claude.client.models.retrieve("claude-opus-4-8")
    with pytest.raises(anthropic.NotFoundError, match="model: claude-opus-4-8"):
        claude.client.messages.create(**params())
