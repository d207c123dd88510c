"""The rows of OpenAI's surface for files, each held over HTTP: sections 1 and 5."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI

from floopy_api.handlers.keys import UPLOADS
from floopy_common.openai.files import UPLOAD_PURPOSES
from floopy_common.stores.blobs import BlobStore, FileReader
from floopy_common.stores.sweeping import BlobSweeper

LINE = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{}}\n'
HOUR = {"anchor": "created_at", "seconds": 3_600}


async def post(
    http: aiohttp.ClientSession, fields: dict[str, str], content: bytes | None = LINE, **more: Any
) -> tuple[int, dict[str, Any]]:
    """Status and body of an upload with these form fields."""
    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in fields.items():
        form.add_field(name, value)
    if content is not None:
        form.add_field("file", content, filename="in.jsonl")
    async with http.post("/v1/files", data=form, **more) as answer:
        return answer.status, await answer.json()


async def uploaded(client: AsyncOpenAI, content: bytes = LINE, **more: Any) -> Any:
    return await client.files.create(file=("in.jsonl", content), purpose="batch", **more)


async def end_life(service: Any, file_id: str) -> None:
    """Let the file expire a moment ago."""
    moment = datetime.now(UTC) - timedelta(milliseconds=5)
    await service.mongo.collection("files").update_one({"_id": file_id}, {"$set": {"expires_at": moment}})


@pytest.mark.surface(
    "1.2 id, object, bytes, created_at, expires_at, filename, purpose, status, status_details"
)
async def test_a_file_has_every_key_and_no_other(http: aiohttp.ClientSession) -> None:
    before = int(datetime.now(UTC).timestamp())
    status, file = await post(http, {"purpose": "batch"})

    assert status == 200
    assert file["id"].startswith("file-")
    assert before <= file["created_at"] <= before + 5
    assert file == {
        "id": file["id"],
        "object": "file",
        "bytes": len(LINE),
        "created_at": file["created_at"],
        "expires_at": file["created_at"] + 2_592_000,
        "filename": "in.jsonl",
        "purpose": "batch",
        "status": "processed",
        "status_details": None,
    }
    async with http.get(f"/v1/files/{file['id']}") as answer:
        assert await answer.json() == file
    async with http.get("/v1/files") as answer:
        assert (await answer.json())["data"] == [file]


@pytest.mark.surface("1.1 purpose: the six that may be uploaded; no expiry but of batch")
@pytest.mark.parametrize("purpose", UPLOAD_PURPOSES)
async def test_every_purpose_is_taken(http: aiohttp.ClientSession, purpose: str) -> None:
    status, file = await post(http, {"purpose": purpose})

    assert (status, file["purpose"]) == (200, purpose)
    assert (file["expires_at"] is None) == (purpose != "batch")


@pytest.mark.surface("1.1 purpose: output-only ones; 5 bad purpose")
@pytest.mark.parametrize("purpose", ["batch_output", "fine-tune-results", "assistants_output", "", "Batch"])
async def test_other_purposes_are_refused(service: Any, http: aiohttp.ClientSession, purpose: str) -> None:
    status, body = await post(http, {"purpose": purpose})

    assert (status, body["error"]["param"], body["error"]["code"]) == (400, "purpose", "invalid_value")
    await service.stores_nothing()


@pytest.mark.surface("1.1 file, purpose: required")
@pytest.mark.parametrize(("fields", "content"), [({"purpose": "batch"}, None), ({"other": "x"}, LINE)])
async def test_what_is_missing_is_named(
    http: aiohttp.ClientSession, fields: dict[str, str], content: bytes | None
) -> None:
    status, body = await post(http, fields, content)

    missing = "file" if content is None else "purpose"
    assert (status, body["error"]["param"]) == (400, missing)
    assert body["error"]["code"] == "missing_required_parameter"


@pytest.mark.surface("1.1 expires_after[anchor], expires_after[seconds]; expires_after as JSON")
@pytest.mark.parametrize(
    "fields",
    [
        {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"},
        {"expires_after": json.dumps(HOUR)},
    ],
)
async def test_a_lifetime_is_read_in_both_forms(http: aiohttp.ClientSession, fields: dict[str, str]) -> None:
    status, file = await post(http, {"purpose": "user_data", **fields})

    assert (status, file["expires_at"]) == (200, file["created_at"] + 3_600)


@pytest.mark.surface("1.1 rows without `method` are accepted: deep checks are the batch's")
async def test_rows_are_not_checked_at_upload(client: AsyncOpenAI) -> None:
    file = await uploaded(client, b'{"no": "method"}\nnot even json\n')

    assert file.status == "processed"


@pytest.mark.surface("1.1 filename: kept as sent, any name")
@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("upload", "upload"),
        ("../../é 😀.jsonl", "../../é 😀.jsonl"),
        ("a" * 300, "a" * 255),
    ],
)
async def test_a_filename_is_kept(client: AsyncOpenAI, sent: str, kept: str) -> None:
    file = await client.files.create(file=(sent, LINE), purpose="batch")

    assert file.filename == kept
    assert (await client.files.retrieve(file.id)).filename == kept


@pytest.mark.surface("1.1 expiry enforced: list, retrieve, content, delete and batches")
async def test_an_expired_file_is_gone_everywhere(service: Any, client: AsyncOpenAI) -> None:
    file, other = await uploaded(client, expires_after=HOUR), await uploaded(client)
    await end_life(service, file.id)

    assert [found.id async for found in client.files.list()] == [other.id]
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            await call(file.id)
    batch = await client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    assert (await service.batch(batch.id))["input"] is None


@pytest.mark.surface("1.1 expiry: the bytes go")
async def test_the_bytes_of_an_expired_file_are_swept_and_its_row_is_forgotten(
    service: Any, client: AsyncOpenAI
) -> None:
    file = await uploaded(client)
    sweeper = BlobSweeper(service.mongo)
    assert await sweeper.condemn_unreferenced(0) == 0
    await end_life(service, file.id)

    assert await sweeper.condemn_unreferenced(0) == 1
    assert await sweeper.delete_condemned() == 1
    await service.app[UPLOADS].tidy()
    assert await service.count("files") == 1
    day_ago = datetime.now(UTC) - timedelta(days=1, seconds=1)
    await service.mongo.collection("files").update_one({"_id": file.id}, {"$set": {"expires_at": day_ago}})
    await service.app[UPLOADS].tidy()
    await service.stores_nothing()


async def test_only_uploaded_files_are_forgotten(service: Any, client: AsyncOpenAI) -> None:
    kept, deleted = await uploaded(client), await uploaded(client)
    await client.files.delete(deleted.id)
    files = service.mongo.collection("files")
    day_ago = datetime.now(UTC) - timedelta(days=1, seconds=1)
    await files.insert_new({"_id": "file-out", "kind": "output", "deleted_at": day_ago, "ranges": []})
    await files.update_one({"_id": deleted.id}, {"$set": {"deleted_at": day_ago}})

    await service.app[UPLOADS].tidy()

    assert {row["_id"] for row in await files.find_all({})} == {kept.id, "file-out"}


@pytest.mark.surface("1.3 an empty page")
async def test_an_empty_list_has_all_five_keys(http: aiohttp.ClientSession) -> None:
    async with http.get("/v1/files", params={"purpose": "no-such-purpose"}) as answer:
        page = await answer.json()

    assert page == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@pytest.mark.surface("1.3 purpose with after and order; after is exclusive")
async def test_every_part_of_a_list_works_with_the_others(
    client: AsyncOpenAI, http: aiohttp.ClientSession
) -> None:
    ids = []
    for number in range(6):
        purpose = "batch" if number % 2 == 0 else "user_data"
        ids.append((await client.files.create(file=("x", LINE), purpose=purpose)).id)

    for order, first, expected in (("asc", ids[0], [ids[2]]), ("desc", ids[4], [ids[2]])):
        query = {"purpose": "batch", "limit": "1", "order": order, "after": first}
        async with http.get("/v1/files", params=query) as answer:
            page = await answer.json()
        assert [file["id"] for file in page["data"]] == expected
        assert page["has_more"] is True


@pytest.mark.surface("1.3 limit 1..10000")
@pytest.mark.parametrize("limit", ["1", "10000"])
async def test_the_ends_of_the_limit_are_taken(http: aiohttp.ClientSession, limit: str) -> None:
    async with http.get("/v1/files", params={"limit": limit}) as answer:
        assert answer.status == 200


@pytest.mark.surface("1.4 deleting the input of a running batch")
async def test_a_batch_keeps_an_input_that_is_deleted(service: Any, client: AsyncOpenAI) -> None:
    file = await uploaded(client)
    batch = await client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )

    deleted = await client.files.delete(file.id)

    assert deleted.model_dump() == {"id": file.id, "object": "file", "deleted": True}
    assert await BlobSweeper(service.mongo).condemn_unreferenced(0) == 0
    ranges = (await service.batch(batch.id))["input"]["ranges"]
    pieces = FileReader(BlobStore(service.mongo)).read_ranges(ranges)
    assert b"".join([piece async for piece in pieces]) == LINE


@pytest.mark.surface("1.4, 5 unknown file id: get, delete, content; another tenant's looks the same")
async def test_another_organisations_file_is_unknown(service: Any, client: AsyncOpenAI, mallory: Any) -> None:
    file = await uploaded(client)

    async with service.client(mallory) as stranger:
        for file_id in (file.id, "file-unknown"):
            for call in (stranger.files.retrieve, stranger.files.delete, stranger.files.content):
                with pytest.raises(openai.NotFoundError) as caught:
                    await call(file_id)
                assert caught.value.body == {
                    "message": f"No such File object: {file_id}",
                    "type": "invalid_request_error",
                    "param": "id",
                    "code": None,
                }
        assert [found async for found in stranger.files.list()] == []
        for file_id in (file.id, "file-unknown"):
            with pytest.raises(openai.BadRequestError) as beyond:
                await stranger.files.list(after=file_id)
            assert beyond.value.body == {
                "message": f"No such File object: {file_id}",
                "type": "invalid_request_error",
                "param": "after",
                "code": None,
            }
    assert (await client.files.retrieve(file.id)).id == file.id


@pytest.mark.surface("5 unknown input_file_id: another tenant's looks the same")
async def test_another_organisations_file_is_no_input(
    service: Any, client: AsyncOpenAI, mallory: Any
) -> None:
    file = await uploaded(client)
    blob = await service.mongo.collection("blobs").find_one({})

    async with service.client(mallory) as stranger:
        batch = await stranger.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )

    assert batch.status == "validating"
    assert (await service.batch(batch.id))["input"] is None
    assert await service.mongo.collection("blobs").find_one({}) == blob


@pytest.mark.surface("1.5 the SDK's Accept, exact length, streaming")
async def test_content_streams_with_its_exact_length(client: AsyncOpenAI) -> None:
    content = LINE * 10_000
    file = await uploaded(client, content)

    async with client.files.with_streaming_response.content(file.id) as answer:
        assert answer.headers["content-length"] == str(len(content))
        assert answer.headers["content-type"] == "application/octet-stream"
        assert b"".join([piece async for piece in answer.iter_bytes()]) == content


@pytest.mark.surface("1.5 uploaded files of every purpose can be read back")
async def test_any_file_can_be_downloaded(client: AsyncOpenAI) -> None:
    file = await client.files.create(file=("x", b""), purpose="assistants")

    assert (await client.files.content(file.id)).content == b""


@pytest.mark.surface("5.2 Idempotency-Key; 9.17")
async def test_the_same_upload_under_one_key_is_one_file(service: Any, client: AsyncOpenAI) -> None:
    key = {"Idempotency-Key": "k"}
    first, second = await asyncio.gather(
        uploaded(client, extra_headers=key), uploaded(client, extra_headers=key)
    )

    assert first == second
    assert await service.count("files") == 1
    assert await BlobSweeper(service.mongo).condemn_unreferenced(0) == 1
    for other in ({"content": LINE * 2}, {"expires_after": HOUR}):
        with pytest.raises(openai.ConflictError) as caught:
            await uploaded(client, extra_headers=key, **other)
        assert caught.value.body["code"] == "idempotency_key_reused"


@pytest.mark.surface("5.2 Idempotency-Key: 24 h, and no longer than what it made")
async def test_a_key_whose_file_is_gone_or_old_is_free(service: Any, client: AsyncOpenAI) -> None:
    key = {"Idempotency-Key": "k"}
    made = [await uploaded(client, extra_headers=key)]

    await client.files.delete(made[-1].id)
    made.append(await uploaded(client, extra_headers=key))
    await end_life(service, made[-1].id)
    made.append(await uploaded(client, extra_headers=key))
    day_ago = datetime.now(UTC) - timedelta(hours=24, seconds=1)
    await service.mongo.collection("files").update_one(
        {"_id": made[-1].id}, {"$set": {"created_at": day_ago}}
    )
    made.append(await uploaded(client, extra_headers=key))

    assert len({file.id for file in made}) == 4


@pytest.mark.surface("5.2 Idempotency-Key: keyed by API key")
async def test_a_key_belongs_to_its_api_key(service: Any, client: AsyncOpenAI, alice: Any) -> None:
    key = {"Idempotency-Key": "k"}
    async with service.client(await service.another_key(alice)) as colleague:
        first = await uploaded(client, extra_headers=key)
        second = await uploaded(colleague, extra_headers=key, content=LINE * 2)

        assert first.id != second.id
        assert (await uploaded(colleague, extra_headers=key, content=LINE * 2)).id == second.id
    assert (await uploaded(client, extra_headers=key)).id == first.id


async def test_a_key_belongs_to_its_organisation(service: Any, client: AsyncOpenAI, mallory: Any) -> None:
    key = {"Idempotency-Key": "k"}
    async with service.client(mallory) as stranger:
        first, second = await uploaded(client, extra_headers=key), await uploaded(stranger, extra_headers=key)

    assert first.id != second.id
