"""A create that is sent again: one batch for one key, and for the SDK's own repeats."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import openai
import pytest
from floopy_calls.batches import LINE, REQUEST, create, post
from openai import AsyncOpenAI

from floopy_common.chassis.mongo import Collection
from floopy_common.stores.batches import BatchStore
from floopy_common.stores.caps import CapStore, month_of


async def test_a_repeat_gets_its_batch_whatever_would_refuse_a_new_one_by_now(service: Any) -> None:
    member = await service.join("small", "openai", plan="free")
    caps, key = CapStore(service.mongo), {"Idempotency-Key": "key-1"}
    async with service.client(member) as client:
        first = await create(client, extra_headers=key)
        await caps.reserve(member.org_id, "batch_big", 100_000, 100_000, month_of(datetime.now(UTC)))

        assert (await create(client, extra_headers=key)).id == first.id
        with pytest.raises(openai.ConflictError):
            await create(client, metadata={"other": "body"}, extra_headers=key)


@pytest.mark.surface("5.2 Idempotency-Key; 9.17")
async def test_the_same_key_and_body_give_the_same_batch(service: Any, client: AsyncOpenAI) -> None:
    key = {"Idempotency-Key": "key-1"}

    first = await create(client, extra_headers=key)
    second = await create(client, extra_headers=key)
    other = await create(client, extra_headers={"Idempotency-Key": "key-2"})

    assert second.id == first.id
    assert other.id != first.id
    assert await service.count("batches") == 2


@pytest.mark.surface("5.2 x-should-retry")
async def test_the_same_key_with_another_body_is_a_conflict_not_to_be_repeated(
    client: AsyncOpenAI,
) -> None:
    key = {"Idempotency-Key": "key-1"}
    await create(client, extra_headers=key)

    with pytest.raises(openai.ConflictError) as refused:
        await create(client, metadata={"a": "b"}, extra_headers=key)

    assert refused.value.response.headers["x-should-retry"] == "false"


async def test_twenty_at_once_with_one_key_make_one_batch(service: Any, client: AsyncOpenAI) -> None:
    file = await client.files.create(file=("in.jsonl", LINE), purpose="batch")

    made = await asyncio.gather(
        *(create(client, input_file_id=file.id, extra_headers={"Idempotency-Key": "race"}) for _ in range(20))
    )

    assert len({batch.id for batch in made}) == 1
    assert await service.count("batches") == 1
    blob = await service.mongo.collection("blobs").find_one({})
    assert blob["pins"] == [made[0].id]


async def test_a_key_is_free_again_after_a_day(service: Any, client: AsyncOpenAI) -> None:
    key = {"Idempotency-Key": "key-1"}
    first = await create(client, extra_headers=key)
    await service.write(first.id, created_at=datetime.now(UTC) - timedelta(hours=25))

    second = await create(client, metadata={"a": "b"}, extra_headers=key)

    assert second.id != first.id
    assert "idempotency_key" not in await service.batch(first.id)


@pytest.mark.surface("5.2 Idempotency-Key: keyed by API key")
async def test_another_api_key_of_the_organisation_makes_its_own_batch(
    service: Any, client: AsyncOpenAI, alice: Any
) -> None:
    key = {"Idempotency-Key": "key-1"}
    first = await create(client, extra_headers=key)
    async with service.client(await service.another_key(alice)) as colleague:
        second = await create(colleague, extra_headers=key)
        other_body = await create(colleague, metadata={"a": "b"}, extra_headers={"Idempotency-Key": "key-2"})

        assert len({first.id, second.id, other_body.id}) == 3
        assert (await create(colleague, extra_headers=key)).id == second.id
    assert (await create(client, extra_headers=key)).id == first.id
    # the other's key does not forbid another request
    assert (await create(client, extra_headers={"Idempotency-Key": "key-2"})).id != other_body.id


@pytest.mark.surface("5.2 Idempotency-Key: keyed by route")
async def test_one_key_serves_every_route(service: Any, client: AsyncOpenAI) -> None:
    key = {"Idempotency-Key": "key-1"}

    file = await client.files.create(file=("in.jsonl", LINE), purpose="batch", extra_headers=key)
    upload = await client.uploads.create(
        filename="in.jsonl", purpose="batch", bytes=16, mime_type="text/jsonl", extra_headers=key
    )
    batch = await create(client, input_file_id=file.id, extra_headers=key)

    assert [file.object, upload.object, batch.object] == ["file", "upload", "batch"]


async def test_one_organisations_key_means_nothing_to_another(
    service: Any, client: AsyncOpenAI, mallory: Any
) -> None:
    key = {"Idempotency-Key": "key-1"}
    first = await create(client, extra_headers=key)
    async with service.client(mallory) as other:
        second = await create(other, metadata={"a": "b"}, extra_headers=key)

    assert second.id != first.id


async def test_looking_a_key_up_reads_no_other_batch(
    service: Any, client: AsyncOpenAI, alice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"_id": f"b{n}", "org_id": alice.org_id, "created_at": datetime.now(UTC)} for n in range(500)]
    batches = service.mongo.collection("batches")
    await batches.insert_many(rows)
    await create(client, extra_headers={"Idempotency-Key": "key-1"})
    filters: list[Any] = []
    original = Collection.find_one

    async def find_one(found: Collection, filter: Any, *args: Any, **options: Any) -> Any:
        filters.append(filter)
        return await original(found, filter, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Collection, "find_one", find_one)
        await BatchStore(service.mongo).find_by_idempotency_key(alice.org_id, alice.key_id, "key-1")

    explained = await batches._raw.find(filters[0]).explain()
    assert explained["executionStats"]["nReturned"] == 1
    assert explained["executionStats"]["totalDocsExamined"] == 1


def repeat(count: int) -> dict[str, dict[str, str]]:
    return {"extra_headers": {"x-stainless-retry-count": str(count)}}


@pytest.mark.surface("5.2 x-stainless-retry-count")
async def test_a_repeat_of_the_sdk_gets_the_first_batch(client: AsyncOpenAI) -> None:
    first = await create(client)

    assert (await create(client, **repeat(1))).id == first.id
    assert (await create(client, **repeat(2))).id == first.id


async def test_two_batches_meant_to_be_two_stay_two(client: AsyncOpenAI) -> None:
    first, second = await create(client), await create(client)

    assert first.id != second.id
    # each was repeated once: both repeats are absorbed, by one batch each
    repeats = {(await create(client, **repeat(1))).id, (await create(client, **repeat(1))).id}
    assert repeats == {first.id, second.id}


async def test_a_repeat_whose_first_sending_never_came_makes_a_batch(
    service: Any, client: AsyncOpenAI
) -> None:
    made = await create(client, **repeat(1))

    assert (await create(client, **repeat(2))).id == made.id
    assert await service.count("batches") == 1


async def test_a_repeat_with_another_body_key_or_time_makes_a_batch(
    service: Any, client: AsyncOpenAI, alice: Any
) -> None:
    first = await create(client)
    other_body = await create(client, metadata={"a": "b"}, **repeat(1))
    async with service.client(await service.another_key(alice)) as colleague:
        other_key = await create(colleague, **repeat(1))
    await service.write(first.id, created_at=datetime.now(UTC) - timedelta(minutes=16))
    too_late = await create(client, **repeat(1))

    assert len({first.id, other_body.id, other_key.id, too_late.id}) == 4


@pytest.mark.parametrize("count", ["-1", "one", "", "1.5", "99999", "²"])
async def test_a_silly_retry_count_counts_as_none(http: aiohttp.ClientSession, count: str) -> None:
    header = {"x-stainless-retry-count": count}
    _, first = await post(http, REQUEST, **header)
    _, second = await post(http, REQUEST, **header)

    assert first["id"] != second["id"]
