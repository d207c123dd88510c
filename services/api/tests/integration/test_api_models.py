"""Models as the official SDK asks for them."""

from datetime import UTC, datetime
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI

from floopy_common.openai import endpoints
from floopy_common.settings import AnthropicModelSettings, AnthropicSettings, ProvidersSettings
from floopy_common.stores.provider_models import ProviderModelStore


@pytest.fixture
def anthropic_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(endpoints.SUPPORTED_ENDPOINTS, "anthropic", ("/v1/chat/completions",))


async def names(client: AsyncOpenAI) -> set[str]:
    return {model.id async for model in client.models.list()}


@pytest.mark.surface("models: list, every field")
async def test_models_are_those_that_the_accounts_can_batch(
    client: AsyncOpenAI, http: aiohttp.ClientSession
) -> None:
    models = [model async for model in client.models.list()]

    assert {"gpt-4o-mini", "gpt-5", "text-embedding-3-small"} <= {model.id for model in models}
    assert {model.owned_by for model in models} == {"openai"}
    assert {model.object for model in models} == {"model"}
    assert len({model.id for model in models}) == len(models)
    assert not {model.id for model in models} & {
        "gpt-image-1",
        "whisper-1",
        "gpt-realtime",
        "gpt-4o-audio-preview",
    }
    async with http.get("/v1/models") as answer:
        page = await answer.json()
    assert page.keys() == {"object", "data"}
    assert page["data"][0].keys() == {"id", "object", "created", "owned_by"}


async def test_claude_models_are_there_with_an_account_for_them(
    service: Any, serving: Any, anthropic_batches: None
) -> None:
    own = ProvidersSettings(
        anthropic=AnthropicSettings(models={"house-model": AnthropicModelSettings(id="claude-sonnet-5")})
    )
    async with serving(providers=own) as configured:
        both = await configured.join("both", "openai", "anthropic")
        one = await configured.join("one", "anthropic")
        async with configured.client(both) as client, configured.client(one) as other:
            assert {"gpt-4o-mini", "claude-sonnet-5", "house-model"} <= await names(client)
            assert "gpt-4o-mini" not in await names(other)
            assert (await other.models.retrieve("claude-haiku-4-5-20251001")).owned_by == "anthropic"
            assert (await other.models.retrieve("anthropic/claude-sonnet-5")).owned_by == "anthropic"
            for unknown in ("claude-unheard-of", "gpt-4o-mini"):
                with pytest.raises(openai.NotFoundError):
                    await other.models.retrieve(unknown)


async def test_what_an_accounts_models_api_said_is_what_it_has(service: Any) -> None:
    member = await service.join("asked", "anthropic")
    account = await service.mongo.collection("provider_accounts").find_one({"org_id": member.org_id})
    said = [{"id": "claude-six-20270101"}, {"id": "claude-opus-5"}, {"id": "claude-old", "retired": True}]
    store = ProviderModelStore(service.mongo)
    async with service.client(member) as client:
        assert "claude-haiku-4-5" in await names(client)

        await store.put(account["_id"], "https://api.example", said, datetime.now(UTC))

        assert await names(client) == {"claude-opus-5", "claude-six", "claude-six-20270101"}
        assert (await client.models.retrieve("claude-six")).owned_by == "anthropic"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("claude-old")


async def test_a_provider_that_takes_no_batches_yet_has_no_models(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(endpoints.SUPPORTED_ENDPOINTS, "anthropic", ())
    member = await service.join("early", "anthropic")
    async with service.client(member) as client:
        assert await names(client) == set()


async def test_without_an_account_there_are_no_models(service: Any) -> None:
    async with service.client(await service.join("alone")) as client:
        assert await names(client) == set()


@pytest.mark.surface("models: retrieve")
@pytest.mark.parametrize(
    "name",
    [
        "gpt-4o-mini",
        "gpt-4o-mini-2024-07-18",
        "ft:gpt-4o-mini-2024-07-18:acme::abc",
        "text-embedding-3-large",
    ],
)
async def test_a_model_is_found_under_each_of_its_names(client: AsyncOpenAI, name: str) -> None:
    model = await client.models.retrieve(name)

    assert model.model_dump(exclude_unset=True) == {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "openai",
    }


@pytest.mark.surface("models: unknown, 404 model_not_found")
@pytest.mark.parametrize("name", ["gpt-unheard-of", "gpt-image-1", "a/b/c", "x" * 500])
async def test_an_unknown_model_is_named(client: AsyncOpenAI, name: str) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve(name)

    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
