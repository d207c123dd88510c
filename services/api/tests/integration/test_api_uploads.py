"""Uploads in parts as the official SDK and raw HTTP use them: OpenAI's surface, section 2."""

import asyncio
import hashlib
import itertools
import random
from typing import Any

import aiohttp
import openai
import pytest
from floopy_calls.uploads import LINE, PARTS, WHOLE, add, create, refused, row
from openai import AsyncOpenAI


@pytest.mark.surface("2: Upload object, every field while pending")
async def test_a_new_upload_is_pending_for_an_hour(client: AsyncOpenAI) -> None:
    upload = await create(client)

    assert upload.id.startswith("upload_")
    assert upload.model_dump() == {
        "id": upload.id,
        "object": "upload",
        "bytes": len(WHOLE),
        "created_at": upload.created_at,
        "expires_at": upload.created_at + 3_600,
        "filename": "in.jsonl",
        "purpose": "batch",
        "status": "pending",
        "file": None,
    }


@pytest.mark.surface("2: UploadPart, every field; complete; nested file; 1.2 of that file")
async def test_parts_become_a_file_without_being_copied(service: Any, client: AsyncOpenAI) -> None:
    upload = await create(client)
    parts = [await client.uploads.parts.create(upload.id, data=part) for part in PARTS]
    blobs = await service.count("blobs")

    done = await client.uploads.complete(upload.id, part_ids=[part.id for part in parts])

    assert {(part.object, part.upload_id) for part in parts} == {("upload.part", upload.id)}
    assert all(part.id.startswith("part_") and part.created_at >= upload.created_at for part in parts)
    assert (done.id, done.status, done.expires_at) == (upload.id, "completed", upload.expires_at)
    assert done.file is not None
    assert done.file == await client.files.retrieve(done.file.id)
    assert (done.file.bytes, done.file.filename, done.file.purpose) == (len(WHOLE), "in.jsonl", "batch")
    assert (done.file.status, done.file.expires_at) == ("processed", done.file.created_at + 2_592_000)
    assert (await client.files.content(done.file.id)).content == WHOLE
    assert await service.count("blobs") == blobs == 3


@pytest.mark.surface("2: parts in parallel, their order decided by part_ids")
async def test_the_order_is_decided_at_the_end(client: AsyncOpenAI) -> None:
    upload = await create(client)
    sent = list(enumerate(PARTS))
    random.Random(1).shuffle(sent)

    async def one(number: int, part: bytes) -> tuple[int, str]:
        return number, (await client.uploads.parts.create(upload.id, data=part)).id

    ids = dict(await asyncio.gather(*itertools.starmap(one, sent)))
    done = await client.uploads.complete(upload.id, part_ids=[ids[number] for number in range(len(PARTS))])

    assert (await client.files.content(done.file.id)).content == WHOLE


@pytest.mark.surface("2: upload_file_chunked; 9.2")
async def test_the_sdks_own_helper_makes_a_batch_input(service: Any, client: AsyncOpenAI) -> None:
    content = LINE * 20_000
    upload = await client.uploads.upload_file_chunked(
        file=content,
        filename="big.jsonl",
        bytes=len(content),
        mime_type="text/jsonl",
        purpose="batch",
        part_size=400_000,
        md5=hashlib.md5(content, usedforsecurity=False).hexdigest(),
    )
    batch = await client.batches.create(
        input_file_id=upload.file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )

    document = await service.batch(batch.id)
    assert document["input"]["bytes"] == len(content)
    assert len(document["input"]["ranges"]) == 4
    assert await service.mongo.collection("blobs").count({"pins": batch.id}) == 4


@pytest.mark.surface("2: mime_type")
@pytest.mark.parametrize(
    "mime_type", ["text/jsonl", "application/jsonl", "application/x-ndjson", "application/json"]
)
async def test_every_usual_type_of_jsonl_is_taken(client: AsyncOpenAI, mime_type: str) -> None:
    assert (await create(client, mime_type=mime_type)).status == "pending"


@pytest.mark.surface("2: expires_after, of the file and not of the upload")
async def test_a_lifetime_is_that_of_the_file(client: AsyncOpenAI) -> None:
    upload = await create(client, len(LINE), expires_after={"anchor": "created_at", "seconds": 7_200})
    done = await client.uploads.complete(upload.id, part_ids=await add(client, upload, LINE))

    assert done.expires_at == done.created_at + 3_600
    assert done.file.expires_at == done.file.created_at + 7_200


@pytest.mark.surface("2: purpose, the full list")
async def test_other_purposes_hold_anything_for_ever(client: AsyncOpenAI) -> None:
    upload = await create(client, 3, purpose="user_data", mime_type="application/pdf")
    done = await client.uploads.complete(upload.id, part_ids=await add(client, upload, b"pdf"))

    assert (done.file.purpose, done.file.expires_at) == ("user_data", None)


@pytest.mark.surface("2: filename, purpose, bytes, mime_type required; 8 GB")
@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"bytes": None}, "bytes", "missing_required_parameter"),
        ({"bytes": "12"}, "bytes", "invalid_type"),
        ({"bytes": True}, "bytes", "invalid_type"),
        ({"bytes": 0}, "bytes", "integer_below_min_value"),
        ({"bytes": 8 * 1024**3 + 1}, "bytes", "integer_above_max_value"),
        ({"filename": None}, "filename", "missing_required_parameter"),
        ({"purpose": None}, "purpose", "missing_required_parameter"),
        ({"purpose": "batch_output"}, "purpose", "invalid_value"),
        ({"mime_type": None}, "mime_type", "missing_required_parameter"),
        ({"mime_type": 3}, "mime_type", "invalid_type"),
        ({"expires_after": {"anchor": "created_at"}}, "expires_after.seconds", "missing_required_parameter"),
        (
            {"expires_after": {"anchor": "created_at", "seconds": 3_599}},
            "expires_after.seconds",
            "integer_below_min_value",
        ),
    ],
)
async def test_a_wrong_field_is_named(
    http: aiohttp.ClientSession, change: dict[str, Any], param: str, code: str
) -> None:
    body = {"filename": "x", "purpose": "batch", "bytes": 1, "mime_type": "text/jsonl", **change}
    async with http.post("/v1/uploads", json=body) as answer:
        error = (await answer.json())["error"]

    assert (answer.status, error["param"], error["code"]) == (400, param, code)
    assert error["type"] == "invalid_request_error"


@pytest.mark.surface("2: sum of part bytes equals bytes; 9.2: wrong byte sum is a 400")
async def test_a_wrong_sum_is_refused_and_can_be_mended(client: AsyncOpenAI) -> None:
    upload = await create(client)
    ids = await add(client, upload, *PARTS[:2])

    error = await refused(client.uploads.complete(upload.id, part_ids=ids))
    ids += await add(client, upload, PARTS[2])

    assert error["param"] == "part_ids"
    assert str(len(WHOLE)) in error["message"]
    assert (await client.uploads.complete(upload.id, part_ids=ids)).status == "completed"


@pytest.mark.surface("2: md5 of the whole content")
async def test_a_checksum_is_checked(client: AsyncOpenAI) -> None:
    upload = await create(client)
    ids = await add(client, upload, *PARTS)
    right = hashlib.md5(WHOLE, usedforsecurity=False).hexdigest()

    for wrong in (right[::-1], "not hex", right[:-1]):
        error = await refused(client.uploads.complete(upload.id, part_ids=ids, md5=wrong))
        assert (error["param"], error["code"]) == ("md5", "invalid_value")
    assert (await client.uploads.complete(upload.id, part_ids=ids, md5=right.upper())).file is not None


@pytest.mark.parametrize(
    "body", [{}, {"part_ids": "part_1"}, {"part_ids": [1]}, {"part_ids": ["x" * 257]}, []]
)
async def test_a_broken_complete_is_a_bad_request(
    client: AsyncOpenAI, http: aiohttp.ClientSession, body: Any
) -> None:
    upload = await create(client)
    async with http.post(f"/v1/uploads/{upload.id}/complete", json=body) as answer:
        assert answer.status == 400


@pytest.mark.surface("1.1: a batch's first line is an object, of an upload too")
async def test_what_is_no_jsonl_never_becomes_a_batch_input(service: Any, client: AsyncOpenAI) -> None:
    upload = await create(client, 8)
    ids = await add(client, upload, b"\n\n\n", b"[1]\n\n")

    error = await refused(client.uploads.complete(upload.id, part_ids=ids))

    assert error["message"] == "Invalid file format for Batch API. Must be .jsonl"
    assert (await row(service, upload))["status"] == "pending"
    assert await service.count("files") == 0


@pytest.mark.surface("5: another tenant's id looks like an unknown one")
async def test_another_organisations_upload_is_unknown(
    service: Any, client: AsyncOpenAI, mallory: Any
) -> None:
    upload = await create(client, len(LINE))
    ids = await add(client, upload, LINE)

    async with service.client(mallory) as stranger:
        for upload_id in (upload.id, "upload_unknown"):
            for call in (
                stranger.uploads.parts.create(upload_id, data=LINE),
                stranger.uploads.complete(upload_id, part_ids=ids),
                stranger.uploads.cancel(upload_id),
            ):
                with pytest.raises(openai.NotFoundError) as caught:
                    await call
                assert caught.value.body["message"] == f"No such Upload object: {upload_id}"
    assert (await row(service, upload))["status"] == "pending"


@pytest.mark.surface("2: there is no GET for an upload and no list")
async def test_an_upload_cannot_be_read(client: AsyncOpenAI, http: aiohttp.ClientSession) -> None:
    upload = await create(client)
    for path, status in (("/v1/uploads", 405), (f"/v1/uploads/{upload.id}", 404)):
        async with http.get(path) as answer:
            assert answer.status == status


@pytest.mark.surface("5.2: Idempotency-Key; 9.17")
async def test_the_same_request_under_one_key_is_one_upload(service: Any, client: AsyncOpenAI) -> None:
    key = {"Idempotency-Key": "k"}
    first, second = await asyncio.gather(create(client, extra_headers=key), create(client, extra_headers=key))

    assert first == second
    with pytest.raises(openai.ConflictError) as caught:
        await create(client, 17, extra_headers=key)
    assert caught.value.body["code"] == "idempotency_key_reused"
    await client.uploads.cancel(first.id)
    assert (await create(client, 17, extra_headers=key)).id != first.id


@pytest.mark.surface("5.2: Idempotency-Key: keyed by API key")
async def test_another_api_key_makes_its_own_upload(service: Any, client: AsyncOpenAI, alice: Any) -> None:
    key = {"Idempotency-Key": "k"}
    first = await create(client, extra_headers=key)
    async with service.client(await service.another_key(alice)) as colleague:
        second = await create(colleague, 17, extra_headers=key)

        assert first.id != second.id
        assert (await create(colleague, 17, extra_headers=key)).id == second.id
    assert (await create(client, extra_headers=key)).id == first.id
