"""Files as the official SDK and raw HTTP use them."""

import random
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI

LINE = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{}}\n'


async def upload(client: AsyncOpenAI, content: bytes = LINE, name: str = "in.jsonl") -> str:
    return (await client.files.create(file=(name, content), purpose="batch")).id


@pytest.mark.surface("1.1 default expiry of batch; 1.2 every field; 1.2 status; 9.1")
async def test_an_upload_is_processed_at_once_and_comes_back_byte_for_byte(client: AsyncOpenAI) -> None:
    content = LINE + random.Random(1).randbytes(3_000_000)

    file = await client.files.create(file=("in.jsonl", content), purpose="batch")

    assert (file.object, file.status, file.bytes) == ("file", "processed", len(content))
    assert (file.filename, file.purpose) == ("in.jsonl", "batch")
    assert file.expires_at == file.created_at + 2_592_000
    assert (await client.files.wait_for_processing(file.id, max_wait_seconds=1)) == file
    assert (await client.files.content(file.id)).content == content


@pytest.mark.surface("1.1 expires_after by the SDK; 9.1")
async def test_a_lifetime_is_honoured(client: AsyncOpenAI) -> None:
    file = await client.files.create(
        file=("in.jsonl", LINE), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3_600}
    )

    assert file.expires_at == file.created_at + 3_600


async def test_an_expired_file_is_unknown(service: Any, client: AsyncOpenAI) -> None:
    file = await client.files.create(file=("in.jsonl", LINE), purpose="batch")
    document = await service.mongo.collection("files").find_one({"_id": file.id})
    past = document["created_at"].replace(year=2020)
    await service.mongo.collection("files").update_one({"_id": file.id}, {"$set": {"expires_at": past}})

    with pytest.raises(openai.NotFoundError):
        await client.files.retrieve(file.id)
    assert [f async for f in client.files.list()] == []


@pytest.mark.surface("1.1 upload-time content check; 5 not .jsonl for batch")
@pytest.mark.parametrize("content", [b"", b"\n \n", b"[1]\n", b"custom_id,url\n"])
async def test_what_is_no_jsonl_is_refused_and_leaves_nothing(
    service: Any, client: AsyncOpenAI, content: bytes
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await upload(client, content)

    assert refused.value.body == {
        "message": "Invalid file format for Batch API. Must be .jsonl",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
    await service.stores_nothing()


@pytest.mark.surface("1.3 purpose, limit, order, after; has_more ends the SDK's paging")
async def test_lists_page_in_both_orders_and_by_purpose(client: AsyncOpenAI) -> None:
    ids = [await upload(client) for _ in range(5)]
    other = (await client.files.create(file=("x", b"anything"), purpose="user_data")).id

    assert [f.id async for f in client.files.list(limit=2, purpose="batch")] == ids[::-1]
    assert [f.id async for f in client.files.list(limit=2, order="asc")] == [*ids, other]


@pytest.mark.surface("1.3 the five keys; an empty page")
async def test_a_page_says_where_it_begins_and_ends(client: AsyncOpenAI, http: aiohttp.ClientSession) -> None:
    ids = [await upload(client) for _ in range(3)]

    async with http.get("/v1/files", params={"limit": "2", "order": "asc"}) as answer:
        page = await answer.json()
    async with http.get("/v1/files", params={"after": ids[0]}) as answer:
        behind = await answer.json()

    assert (page["object"], page["has_more"]) == ("list", True)
    assert (page["first_id"], page["last_id"]) == (ids[0], ids[1])
    assert (behind["data"], behind["first_id"], behind["last_id"]) == ([], None, None)
    assert behind["has_more"] is False


@pytest.mark.surface("1.3 limit, order, after; 5 limit out of range, not an integer, unknown after")
@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ({"limit": "0"}, "limit", "integer_below_min_value"),
        ({"limit": "10001"}, "limit", "integer_above_max_value"),
        ({"limit": "ten"}, "limit", "invalid_type"),
        ({"order": "random"}, "order", "invalid_value"),
        ({"after": "file-unknown"}, "after", None),
    ],
)
async def test_wrong_queries_are_named(
    http: aiohttp.ClientSession, query: dict[str, str], param: str, code: str | None
) -> None:
    async with http.get("/v1/files", params=query) as answer:
        error = (await answer.json())["error"]

    assert (answer.status, error["param"], error["code"]) == (400, param, code)


@pytest.mark.surface("1.4 delete; 5 unknown file id")
async def test_a_deleted_file_is_unknown_but_can_be_paged_from(client: AsyncOpenAI) -> None:
    first, second = await upload(client), await upload(client)

    deleted = await client.files.delete(second)

    assert deleted.model_dump() == {"id": second, "object": "file", "deleted": True}
    for call in (client.files.retrieve, client.files.delete, client.files.content):
        with pytest.raises(openai.NotFoundError, match=f"No such File object: {second}"):
            await call(second)
    assert [f.id async for f in client.files.list(after=second)] == [first]


@pytest.mark.surface("1.5 Range")
async def test_any_range_is_served(client: AsyncOpenAI, http: aiohttp.ClientSession) -> None:
    content = LINE + random.Random(2).randbytes(1_000_000)
    url = f"/v1/files/{await upload(client, content)}/content"

    for header, start, end in (
        ("bytes=0-9", 0, 10),
        ("bytes=261119-261121", 261_119, 261_122),
        ("bytes=500000-", 500_000, len(content)),
        ("bytes=-7", len(content) - 7, len(content)),
    ):
        async with http.get(url, headers={"Range": header}) as answer:
            assert answer.status == 206
            assert await answer.read() == content[start:end]
            assert answer.headers["Content-Length"] == str(end - start)
            assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(content)}"


@pytest.mark.surface("1.5 Range")
async def test_a_range_behind_the_end_is_refused(client: AsyncOpenAI, http: aiohttp.ClientSession) -> None:
    url = f"/v1/files/{await upload(client)}/content"

    async with http.get(url, headers={"Range": "bytes=1000-"}) as answer:
        assert answer.status == 416
        assert answer.headers["Content-Range"] == f"bytes */{len(LINE)}"
        assert (await answer.json())["error"]["type"] == "invalid_request_error"


@pytest.mark.surface("1.5 Content-Type, Content-Length, no transfer encoding, safe headers")
async def test_content_is_never_anything_a_browser_would_run(
    client: AsyncOpenAI, http: aiohttp.ClientSession
) -> None:
    file_id = await upload(client, name='<script>".html')

    async with http.get(f"/v1/files/{file_id}/content") as answer:
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Disposition"].startswith("attachment; ")
        assert answer.headers["Content-Length"] == str(len(LINE))
        assert "Transfer-Encoding" not in answer.headers


@pytest.mark.surface("1.5 ETag")
async def test_an_unchanged_file_is_not_sent_again(client: AsyncOpenAI, http: aiohttp.ClientSession) -> None:
    url = f"/v1/files/{await upload(client)}/content"
    async with http.get(url) as answer:
        etag = answer.headers["ETag"]

    async with http.get(url, headers={"If-None-Match": etag}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")
    async with http.get(url, headers={"Range": "bytes=0-1", "If-Range": '"other"'}) as answer:
        assert (answer.status, await answer.read()) == (200, LINE)
    async with http.get(url, headers={"Range": "bytes=0-1", "If-Range": etag}) as answer:
        assert answer.status == 206


@pytest.mark.surface("1.5 Range over a file of several parts")
async def test_a_file_of_several_ranges_is_one_file(
    service: Any, alice: Any, client: AsyncOpenAI, http: aiohttp.ClientSession
) -> None:
    parts = [await upload(client, LINE * count) for count in (1, 2, 3)]
    rows = [await service.mongo.collection("files").find_one({"_id": part}) for part in parts]
    ranges = [{**row["ranges"][0], "offset": 10, "length": row["bytes"] - 10} for row in rows]
    whole = b"".join((LINE * count)[10:] for count in (1, 2, 3))
    joined = {**rows[0], "_id": "file-joined", "ranges": ranges, "bytes": len(whole), "etag": "ab"}
    await service.mongo.collection("files").insert_new(joined)

    assert (await client.files.content("file-joined")).content == whole
    async with http.get("/v1/files/file-joined/content", headers={"Range": "bytes=60-150"}) as answer:
        assert await answer.read() == whole[60:151]


async def test_a_file_whose_bytes_are_gone_is_an_honest_error(
    service: Any, client: AsyncOpenAI, http: aiohttp.ClientSession
) -> None:
    url = f"/v1/files/{await upload(client)}/content"
    await service.mongo.collection("blobs").delete_many({})

    async with http.get(url) as answer:
        assert answer.status == 500
        assert "blob" not in (await answer.text())


async def test_a_download_that_breaks_never_looks_complete(
    service: Any, client: AsyncOpenAI, http: aiohttp.ClientSession
) -> None:
    file_id = await upload(client, LINE + b"x" * 3_000_000)
    last = await service.mongo.collection("blob_chunks").find_one({}, {"_id": 1}, sort=[("_id", -1)])
    await service.mongo.collection("blob_chunks").delete_one(last)

    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)):
        async with http.get(f"/v1/files/{file_id}/content") as answer:
            await answer.read()


async def test_a_reader_that_leaves_does_no_harm(
    client: AsyncOpenAI, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    file_id = await upload(client, LINE + b"x" * 3_900_000)
    url = f"/v1/files/{file_id}/content"
    async with http.get(url) as answer:
        await answer.content.read(1)
        answer.close()

    async with http.get(url, headers={"Range": "bytes=0-0"}) as answer:
        assert await answer.read() == LINE[:1]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
