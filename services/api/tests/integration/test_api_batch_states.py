"""The batch object along its life: what each status has set, and what there is no call for."""

from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI
from openai.types import Batch

from floopy_common.domain.batch import BatchStatus
from floopy_common.stores.batches import BatchStore

REQUEST: dict[str, Any] = {
    "input_file_id": "file-x",
    "endpoint": "/v1/chat/completions",
    "completion_window": "24h",
}
STAMPS = (
    *("in_progress_at", "finalizing_at", "completed_at", "failed_at"),
    *("expired_at", "cancelling_at", "cancelled_at"),
)
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
LIVES = [
    ["validating"],
    ["failed"],
    ["in_progress"],
    ["in_progress", "failed"],
    ["in_progress", "finalizing"],
    ["in_progress", "finalizing", "completed"],
    ["in_progress", "finalizing", "expired"],
    ["cancelling"],
    ["in_progress", "cancelling", "cancelled"],
    ["in_progress", "finalizing", "cancelling", "cancelled"],
]


async def create(client: AsyncOpenAI, **changes: Any) -> Batch:
    return await client.batches.create(**{**REQUEST, **changes})


async def lived(service: Any, client: AsyncOpenAI, life: list[str]) -> Batch:
    """A batch that went through these statuses, a minute in each, as its owner reads it."""
    batch_id = (await create(client)).id
    store = BatchStore(service.mongo)
    for minute, name in enumerate(life):
        batch = await store.get(batch_id)
        assert batch is not None
        if name != "validating":
            now = EPOCH + timedelta(minutes=minute)
            assert await store.transition(batch, BatchStatus(name), now=now, by="test")
    return await client.batches.retrieve(batch_id)


@pytest.mark.surface("3.4 what each status has set; 3.3 timestamps are set once and stay")
@pytest.mark.parametrize("life", LIVES, ids="-".join)
async def test_a_batch_is_stamped_once_for_each_status_it_was_in(
    service: Any, client: AsyncOpenAI, life: list[str]
) -> None:
    batch = await lived(service, client, life)

    expected: dict[str, int | None] = dict.fromkeys(STAMPS)
    for minute, name in enumerate(life):
        if name != "validating":
            expected[f"{name}_at"] = int(EPOCH.timestamp()) + 60 * minute
    assert batch.status == life[-1]
    assert {name: getattr(batch, name) for name in STAMPS} == expected
    assert batch.expires_at == batch.created_at + 86_400


@pytest.mark.surface("3.3 every field, always: null where there is nothing")
async def test_a_new_batch_has_null_for_all_it_does_not_know(
    client: AsyncOpenAI, http: aiohttp.ClientSession
) -> None:
    batch_id = (await create(client)).id
    async with http.get(f"/v1/batches/{batch_id}") as answer:
        batch = await answer.json()

    unknown = ("model", "errors", "output_file_id", "error_file_id", "usage", "metadata", *STAMPS)
    assert {name: batch[name] for name in unknown} == dict.fromkeys(unknown)
    assert batch["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert (batch["object"], batch["status"]) == ("batch", "validating")
    assert batch["id"].startswith("batch_")


@pytest.mark.surface("3.3 model: null until the input is read")
async def test_the_model_shows_once_the_batch_is_planned(service: Any, client: AsyncOpenAI) -> None:
    batch_id = (await create(client)).id
    assert (await client.batches.retrieve(batch_id)).model is None

    await service.write(batch_id, plan={"model": "gpt-4o-mini"})

    assert (await client.batches.retrieve(batch_id)).model == "gpt-4o-mini"


@pytest.mark.surface("3.4 failed: errors, no files, 0/0/0")
async def test_a_refused_batch_has_its_errors_and_nothing_else(service: Any, client: AsyncOpenAI) -> None:
    batch_id = (await create(client)).id
    fault = {"code": "invalid_url", "line": 3, "message": "No.", "param": "url"}
    await service.write(batch_id, status="failed", failed_at=EPOCH, errors=[fault])

    batch = await client.batches.retrieve(batch_id)

    assert batch.errors is not None
    assert batch.errors.model_dump() == {"object": "list", "data": [fault]}
    assert (batch.output_file_id, batch.error_file_id, batch.usage) == (None, None, None)
    assert batch.request_counts is not None
    assert batch.request_counts.model_dump() == {"total": 0, "completed": 0, "failed": 0}


@pytest.mark.surface("5 unknown batch; 9.14: another organisation's looks the same")
async def test_an_unknown_batch_and_somebody_elses_are_told_alike(
    service: Any, client: AsyncOpenAI, mallory: Any
) -> None:
    theirs = (await create(client)).id
    async with service.client(mallory) as stranger:
        for call in (stranger.batches.retrieve, stranger.batches.cancel):
            for name in ("batch_unknown", theirs):
                with pytest.raises(openai.NotFoundError) as refused:
                    await call(name)
                assert refused.value.body == {
                    "message": f"No batch found with id '{name}'.",
                    "type": "invalid_request_error",
                    "param": None,
                    "code": None,
                }
        with pytest.raises(openai.BadRequestError) as beyond:
            await stranger.batches.list(after=theirs)
    assert beyond.value.body == {
        "message": f"No batch found with id '{theirs}'.",
        "type": "invalid_request_error",
        "param": "after",
        "code": None,
    }
    assert (await client.batches.retrieve(theirs)).status == "validating"


@pytest.mark.surface("3.2 no delete, no update")
@pytest.mark.parametrize("method", ["DELETE", "POST", "PUT", "PATCH"])
async def test_a_batch_is_neither_deleted_nor_changed(
    client: AsyncOpenAI, http: aiohttp.ClientSession, method: str
) -> None:
    batch = await create(client)

    async with http.request(method, f"/v1/batches/{batch.id}", json={"metadata": {"a": "b"}}) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET")

    assert await client.batches.retrieve(batch.id) == batch


@pytest.mark.surface("3.2 list: limit 1..100, 20 by default; after is exclusive")
async def test_a_page_has_twenty_unless_it_is_told(client: AsyncOpenAI) -> None:
    made = [(await create(client)).id for _ in range(22)][::-1]

    first = await client.batches.list()
    whole = await client.batches.list(limit=100)
    behind = await client.batches.list(limit=1, after=made[19])

    assert ([batch.id for batch in first.data], first.has_more) == (made[:20], True)
    assert ([batch.id for batch in whole.data], whole.has_more) == (made, False)
    assert ([batch.id for batch in behind.data], behind.has_more) == (made[20:21], True)
