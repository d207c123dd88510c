"""How uploads end: completed, cancelled or expired, by one winner; their parts kept or let go."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from floopy_calls.uploads import LINE, PARTS, WHOLE, add, create, expire, refused, row
from openai import AsyncOpenAI

from floopy_api.handlers.keys import UPLOADS
from floopy_common.stores.sweeping import BlobSweeper


@pytest.mark.surface("2: nothing may be added after complete, cancel or expiry")
async def test_an_upload_that_ended_takes_nothing_more(service: Any, client: AsyncOpenAI) -> None:
    ended = {}
    for status in ("completed", "cancelled", "expired"):
        ended[status] = await create(client, len(LINE))
        ids = await add(client, ended[status], LINE)
        if status == "completed":
            await client.uploads.complete(ended[status].id, part_ids=ids)
        elif status == "cancelled":
            await client.uploads.cancel(ended[status].id)
        else:
            await expire(service, ended[status])
    blobs = await service.count("blobs")

    for status, upload in ended.items():
        error = await refused(client.uploads.parts.create(upload.id, data=LINE))
        assert error["message"] == f"Cannot add a part to an Upload with status '{status}'."
        assert (await row(service, upload))["status"] == status
    assert await service.count("blobs") == blobs


@pytest.mark.surface("2: cancel")
async def test_a_cancelled_upload_lets_go_of_its_parts(service: Any, client: AsyncOpenAI) -> None:
    upload = await create(client)
    ids = await add(client, upload, *PARTS)

    cancelled = await client.uploads.cancel(upload.id)

    assert (cancelled.status, cancelled.file) == ("cancelled", None)
    assert await client.uploads.cancel(upload.id) == cancelled
    assert "cancelled" in (await refused(client.uploads.complete(upload.id, part_ids=ids)))["message"]
    assert await BlobSweeper(service.mongo).condemn_unreferenced(0) == 3


@pytest.mark.surface("2: cancel after complete; complete again")
async def test_completing_again_gives_the_same_file(service: Any, client: AsyncOpenAI) -> None:
    upload = await create(client, 2 * len(LINE))
    ids = await add(client, upload, LINE, LINE)
    done = await client.uploads.complete(upload.id, part_ids=ids)

    assert await client.uploads.complete(upload.id, part_ids=ids) == done
    assert "other parts" in (await refused(client.uploads.complete(upload.id, part_ids=ids[::-1])))["message"]
    assert "completed" in (await refused(client.uploads.cancel(upload.id)))["message"]
    assert await service.count("files") == 1


@pytest.mark.surface("2: expired after one hour")
async def test_an_expired_upload_lets_go_of_its_parts(service: Any, client: AsyncOpenAI) -> None:
    upload, standing = await create(client), await create(client)
    ids = await add(client, upload, *PARTS)
    await add(client, standing, *PARTS)
    await expire(service, upload)

    await service.app[UPLOADS].tidy()

    assert (await row(service, upload))["status"] == "expired"
    assert (await row(service, standing))["status"] == "pending"
    assert "expired" in (await refused(client.uploads.complete(upload.id, part_ids=ids)))["message"]
    assert "expired" in (await refused(client.uploads.cancel(upload.id)))["message"]
    assert await BlobSweeper(service.mongo).condemn_unreferenced(0) == 3


async def test_the_hour_is_the_databases_even_when_nothing_tidies(service: Any, client: AsyncOpenAI) -> None:
    upload = await create(client)
    ids = await add(client, upload, *PARTS)
    await expire(service, upload)

    assert "expired" in (await refused(client.uploads.complete(upload.id, part_ids=ids)))["message"]
    assert await service.count("files") == 0


async def test_the_sweeper_spares_parts_until_their_file_stands(service: Any, client: AsyncOpenAI) -> None:
    sweeper = BlobSweeper(service.mongo)
    upload = await create(client)
    ids = await add(client, upload, *PARTS, b"a part that was sent in vain")
    assert await sweeper.condemn_unreferenced(0) == 0

    done = await client.uploads.complete(upload.id, part_ids=ids[:3])

    assert await sweeper.condemn_unreferenced(0) == 1
    assert await sweeper.delete_condemned() == 1
    assert (await client.files.content(done.file.id)).content == WHOLE


async def test_complete_and_cancel_at_once_have_one_winner(service: Any, client: AsyncOpenAI) -> None:
    for _ in range(5):
        upload = await create(client, len(LINE))
        ids = await add(client, upload, LINE)
        outcomes = await asyncio.gather(
            client.uploads.complete(upload.id, part_ids=ids),
            client.uploads.cancel(upload.id),
            client.uploads.complete(upload.id, part_ids=ids),
            client.uploads.parts.create(upload.id, data=LINE),
            return_exceptions=True,
        )

        status = (await row(service, upload))["status"]
        done = {o.status for o in (*outcomes[:2], outcomes[2]) if not isinstance(o, Exception)}
        assert done == {status}
        assert await service.count("files") == (1 if status == "completed" else 0)
        assert (await row(service, upload))["parts"] == []
        await service.mongo.collection("files").delete_many({})


async def test_two_completes_at_once_make_one_file(service: Any, client: AsyncOpenAI) -> None:
    upload = await create(client)
    ids = await add(client, upload, *PARTS)

    first, second = await asyncio.gather(
        client.uploads.complete(upload.id, part_ids=ids), client.uploads.complete(upload.id, part_ids=ids)
    )

    assert first == second
    assert await service.count("files") == 1


async def test_what_ended_long_ago_is_forgotten_and_its_file_is_not(
    service: Any, client: AsyncOpenAI
) -> None:
    upload = await create(client, len(LINE))
    done = await client.uploads.complete(upload.id, part_ids=await add(client, upload, LINE))
    long_ago = (await row(service, upload))["created_at"] - timedelta(days=2)
    await service.mongo.collection("uploads").update_one({}, {"$set": {"expires_at": long_ago}})

    await service.app[UPLOADS].tidy()

    assert await service.count("uploads") == 0
    assert (await client.files.content(done.file.id)).content == LINE
