"""Uploads in parts as the official SDK and raw HTTP use them: OpenAI's surface, section 2."""

import asyncio
import hashlib
import itertools
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI

from floopy_api.handlers.keys import UPLOADS
from floopy_common.settings import UploadsSettings
from floopy_common.stores.sweeping import BlobSweeper

LINE = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{}}\n'
PARTS = (LINE * 3 + b'{"custom_id":', b'"b"}\n' + b"x" * 600_000, b"the end")
WHOLE = b"".join(PARTS)


async def create(client: AsyncOpenAI, size: int = len(WHOLE), **more: Any) -> Any:
    asked = {"filename": "in.jsonl", "purpose": "batch", "mime_type": "application/jsonl", **more}
    return await client.uploads.create(bytes=size, **asked)


async def add(client: AsyncOpenAI, upload: Any, *parts: bytes) -> list[str]:
    """The ids of these parts, sent one after the other."""
    return [(await client.uploads.parts.create(upload.id, data=part)).id for part in parts]


async def row(service: Any, upload: Any) -> dict[str, Any]:
    found = await service.mongo.collection("uploads").find_one({"_id": upload.id})
    assert found is not None
    return dict(found)


async def expire(service: Any, upload: Any) -> None:
    past = (await row(service, upload))["created_at"] - timedelta(seconds=1)
    await service.mongo.collection("uploads").update_one({"_id": upload.id}, {"$set": {"expires_at": past}})


def refused(call: Any) -> Any:
    """Awaits the call and gives back OpenAI's error object; fails when it was not a 400."""

    async def outcome() -> dict[str, Any]:
        with pytest.raises(openai.BadRequestError) as caught:
            await call
        return dict(caught.value.body)

    return outcome()


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


@pytest.mark.surface("2: part_ids")
async def test_only_parts_of_this_upload_are_taken_and_each_once(client: AsyncOpenAI) -> None:
    upload, other = await create(client, 2 * len(LINE)), await create(client, len(LINE))
    (mine,), (theirs,) = await add(client, upload, LINE), await add(client, other, LINE)

    for ids in ([mine, mine], [mine, theirs], [mine, "part_unknown"], []):
        assert (await refused(client.uploads.complete(upload.id, part_ids=ids)))["param"] == "part_ids"


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
    await service.eventually(chunks_are_there)
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
