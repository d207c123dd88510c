"""Parts of an upload: which are taken, which are not, and that those leave nothing."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import aiohttp
import openai
import pytest
from floopy_calls.uploads import LINE, add, create, refused, row
from openai import AsyncOpenAI
from waiting import eventually

from floopy_api.handlers.keys import UPLOADS
from floopy_common.settings import UploadsSettings
from floopy_common.stores.sweeping import BlobSweeper


@pytest.mark.surface("2: part_ids")
async def test_only_parts_of_this_upload_are_taken_and_each_once(client: AsyncOpenAI) -> None:
    upload, other = await create(client, 2 * len(LINE)), await create(client, len(LINE))
    (mine,), (theirs,) = await add(client, upload, LINE), await add(client, other, LINE)

    for ids in ([mine, mine], [mine, theirs], [mine, "part_unknown"], []):
        assert (await refused(client.uploads.complete(upload.id, part_ids=ids)))["param"] == "part_ids"


async def test_a_part_condemned_too_early_lives_on(service: Any, client: AsyncOpenAI) -> None:
    upload = await create(client, len(LINE))
    ids = await add(client, upload, LINE)
    condemned = {"state": "condemned", "condemned_at": datetime(2020, 1, 1, tzinfo=UTC)}
    await service.mongo.collection("blobs").update_one({}, {"$set": condemned})

    assert await BlobSweeper(service.mongo).delete_condemned() == 0

    done = await client.uploads.complete(upload.id, part_ids=ids)
    assert (await client.files.content(done.file.id)).content == LINE


async def test_a_part_whose_blob_was_swept_meanwhile_is_not_added(
    service: Any, client: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = await create(client)
    uploads = service.app[UPLOADS]
    original = uploads.add_part

    async def add_part(caller: Any, upload_id: str, stored: Any) -> Any:
        await BlobSweeper(service.mongo).condemn_unreferenced(0)
        return await original(caller, upload_id, stored)

    monkeypatch.setattr(uploads, "add_part", add_part)
    with pytest.raises(openai.InternalServerError):
        await add(client, upload, LINE)

    assert (await row(service, upload))["parts"] == []


@pytest.mark.surface("2: each part at most 64 MB; 413")
async def test_a_part_that_is_too_large_leaves_nothing(service: Any, alice: Any, serving: Any) -> None:
    async with (
        serving(uploads=UploadsSettings(max_part_bytes=700_000)) as small,
        small.client(alice) as client,
    ):
        upload = await create(client, 2_000_000)
        await add(client, upload, b"x" * 700_000)
        with pytest.raises(openai.APIStatusError) as refusal:
            await add(client, upload, b"x" * 700_001)

        assert refusal.value.status_code == 413
        assert len((await row(small, upload))["parts"]) == 1
        assert await small.count("blobs") == 1


@pytest.mark.parametrize(
    ("field", "data", "param"), [("file", LINE, "data"), ("data", b"", "data"), ("data", b"x" * 301, "data")]
)
async def test_a_part_that_cannot_be_is_refused_and_leaves_nothing(
    service: Any, client: AsyncOpenAI, http: aiohttp.ClientSession, field: str, data: bytes, param: str
) -> None:
    upload = await create(client, 100)
    form = aiohttp.FormData()
    form.add_field(field, data, filename="upload")

    async with http.post(f"/v1/uploads/{upload.id}/parts", data=form) as answer:
        error = (await answer.json())["error"]

    assert (answer.status, error["param"]) == (400, param)
    await service.stores_nothing()


async def test_what_is_no_form_is_no_part(client: AsyncOpenAI, http: aiohttp.ClientSession) -> None:
    upload = await create(client)
    async with http.post(f"/v1/uploads/{upload.id}/parts", data=LINE) as answer:
        assert answer.status == 415


@pytest.mark.surface("2: a client that leaves in the middle of a part; 5: nothing stays")
async def test_a_client_that_leaves_in_the_middle_of_a_part_leaves_nothing(
    service: Any, alice: Any, client: AsyncOpenAI
) -> None:
    upload = await create(client, 9_000_000)
    host, port = service.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"POST /v1/uploads/{upload.id}/parts HTTP/1.1\r\nHost: {host}\r\n"
        f"Authorization: Bearer {alice.api_key}\r\nContent-Length: 8000000\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="data"; filename="x"\r\n\r\n'
    )

    async def chunks_are_there() -> bool:
        return bool(await service.count("blob_chunks"))

    writer.write(head.encode() + b"x" * 5_000_000)
    await eventually(chunks_are_there, timeout=10, what="a part under way")
    writer.transport.abort()

    await service.stores_nothing()
    assert (await row(service, upload))["parts"] == []


@pytest.mark.surface("2: each part at most 64 MB; 9.18: 413 from the announced length alone")
@pytest.mark.parametrize(
    ("length", "upload_id", "status"),
    [(64 * 1024**2 + 1_000_000, None, 413), (100, "upload_unknown", 404), (64 * 1024**2 + 1_000, None, 100)],
)
async def test_a_part_is_judged_by_its_head_before_it_is_asked_for(
    service: Any, alice: Any, client: AsyncOpenAI, length: int, upload_id: str | None, status: int
) -> None:
    upload = await create(client, 8 * 1024**3)
    host, port = service.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"POST /v1/uploads/{upload_id or upload.id}/parts HTTP/1.1\r\nHost: {host}\r\n"
        f"Authorization: Bearer {alice.api_key}\r\nContent-Length: {length}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nExpect: 100-continue\r\n\r\n"
    )
    try:
        writer.write(head.encode())
        line = await asyncio.wait_for(reader.readline(), 10)
    finally:
        writer.transport.abort()

    assert int(line.split()[1]) == status
