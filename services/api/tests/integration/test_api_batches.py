"""Creating, reading and listing batches."""

import asyncio
import io
from datetime import UTC, datetime
from typing import Any

import aiohttp
import msgspec
import openai
import pytest
from floopy_calls.batches import LINE, REQUEST, create, post
from openai import AsyncOpenAI

from floopy_api.core.authentication import Caller
from floopy_api.core.files import Stored, Wish, file_document
from floopy_api.handlers.keys import BLOBS
from floopy_common.chassis.mongo import Collection
from floopy_common.stores.caps import CapStore, month_of


@pytest.mark.surface("3.1; 3.3")
async def test_a_created_batch_reads_back_as_it_was_answered(client: AsyncOpenAI) -> None:
    metadata = {"price": "$5 off", "root": "$$ROOT", "a.b": "dots", "$set": "dollar", "é": "\u2028"}
    options = {"output_expires_after": {"anchor": "created_at", "seconds": 3_600}}

    created = await create(client, metadata=metadata, **options)
    read = await client.batches.retrieve(created.id)

    assert created.status == "validating"
    assert created.metadata == metadata
    assert created.expires_at == created.created_at + 86_400
    assert read.model_dump() == created.model_dump()


async def test_the_input_is_kept_and_pinned(service: Any, client: AsyncOpenAI) -> None:
    file = await client.files.create(file=("in.jsonl", LINE), purpose="batch")
    batch = await create(client, input_file_id=file.id)
    await client.files.delete(file.id)

    stored = await service.batch(batch.id)
    blob = stored["input"]["ranges"][0]["blob"]
    pinned = await service.mongo.collection("blobs").find_one({"_id": blob})

    assert stored["input"] == {
        "ranges": [{"blob": blob, "offset": 0, "length": len(LINE), "sha256": pinned["sha256"]}],
        "bytes": len(LINE),
        "filename": "in.jsonl",
        "purpose": "batch",
    }
    assert pinned["pins"] == [batch.id]


async def test_an_unknown_input_or_a_wrong_purpose_is_for_the_planner(
    service: Any, client: AsyncOpenAI
) -> None:
    other = await client.files.create(file=("x", b"x"), purpose="user_data")

    unknown = await create(client)
    wrong = await create(client, input_file_id=other.id)

    assert (await service.batch(unknown.id))["input"] is None
    assert (await service.batch(wrong.id))["input"]["purpose"] == "user_data"


async def test_an_input_whose_bytes_are_about_to_go_is_unknown(service: Any, client: AsyncOpenAI) -> None:
    file = await client.files.create(file=("in.jsonl", LINE), purpose="batch")
    await service.mongo.collection("blobs").update_many({}, {"$set": {"state": "condemned"}})

    batch = await create(client, input_file_id=file.id)

    assert (await service.batch(batch.id))["input"] is None


async def test_an_input_of_many_parts_is_pinned_by_one_call_whole_or_not_at_all(
    service: Any, alice: Any, client: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [await service.app[BLOBS].put("input", LINE) for _ in range(5)]
    wish = Wish("in.jsonl", "batch", None)
    file = file_document(
        Caller(alice.org_id, alice.key_id),
        wish,
        [Stored(p.id, p.length, p.sha256) for p in parts],
        datetime.now(UTC),
    )
    blobs = service.mongo.collection("blobs")
    await service.mongo.collection("files").insert_new(file)
    calls: list[str] = []
    for name in ("update_one", "update_many"):
        _noting(monkeypatch, name, calls)

    batch = await create(client, input_file_id=file["_id"])

    assert calls == ["update_many"]
    assert await blobs.count({"pins": batch.id}) == 5
    await blobs.update_one({"_id": parts[2].id}, {"$set": {"state": "condemned"}})
    refused = await create(client, input_file_id=file["_id"])
    assert (await service.batch(refused.id))["input"] is None
    assert await blobs.count({"pins": refused.id}) == 0


def _noting(monkeypatch: pytest.MonkeyPatch, name: str, calls: list[str]) -> None:
    """Note each call of a collection's method on blobs."""
    original = getattr(Collection, name)

    async def noted(found: Collection, *args: Any, **options: Any) -> Any:
        if found.name == "blobs":
            calls.append(name)
        return await original(found, *args, **options)

    monkeypatch.setattr(Collection, name, noted)


async def test_the_event_waits_in_the_batch_and_its_relay_is_woken(service: Any, client: AsyncOpenAI) -> None:
    batch = await create(client)

    (event,) = (await service.batch(batch.id))["outbox"]
    assert (event["topic"], event["key"], event["by"]) == ("batch.created", batch.id, "floopy-api")
    assert msgspec.json.decode(event["value"])["data"]["batch_id"] == batch.id
    assert service.woken == [True]


async def test_headers_are_kept_without_credentials(
    service: Any, alice: Any, http: aiohttp.ClientSession
) -> None:
    _, batch = await post(
        http,
        REQUEST,
        **{
            "Floopy-Session-Id": "session é",
            "floopy-tag": "blue",
            "floopy-api-key": "sk-live-0123456789",
            "floopy-note": f"Bearer {alice.api_key}",
            "User-Agent": "my-app/1",
            "X-Client-Request-Id": "mine-1",
            "Cookie": "a=b",
            "X-Other": "no",
        },
    )

    context = (await service.batch(batch["id"]))["context"]
    assert context["session_id"] == "session é"
    assert context["headers"] == {
        "floopy-session-id": "session é",
        "floopy-tag": "blue",
        "floopy-note": "[redacted]",
        "user-agent": "my-app/1",
        "x-client-request-id": "mine-1",
    }


async def test_bytes_that_are_no_text_do_not_break_a_create(service: Any, alice: Any) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = msgspec.json.encode(REQUEST)
    head = (
        f"POST /v1/batches HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {alice.api_key}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n"
    )
    writer.write(head.encode() + b"floopy-session-id: \xff\xfe\r\n\r\n" + body)

    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_too_long_a_header_is_named(http: aiohttp.ClientSession) -> None:
    status, answer = await post(http, REQUEST, **{"floopy-session-id": "x" * 513})

    assert (status, answer["error"]["param"]) == (400, "floopy-session-id")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"input_file_id": "\\ud800"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a": ' + b"9" * 900_000 + b"}",
        b'{"a": NaN}',
        b"\xff\xfe",
        b"input_file_id=file-x",
    ],
)
async def test_what_is_no_request_is_a_bad_request(http: aiohttp.ClientSession, body: bytes) -> None:
    status, answer = await post(http, body)

    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


async def test_a_body_over_a_mebibyte_is_too_large(http: aiohttp.ClientSession) -> None:
    async def endless() -> Any:
        for _ in range(20):
            yield b" " * 65_536

    json_type = {"Content-Type": "application/json"}
    async with http.post("/v1/batches", data=io.BytesIO(b" " * 1_048_577), headers=json_type) as announced:
        assert announced.status == 413
    async with http.post("/v1/batches", data=endless(), headers=json_type) as counted:
        assert counted.status == 413
        assert (await counted.json())["error"]["type"] == "invalid_request_error"


async def test_operators_in_a_body_are_only_text(http: aiohttp.ClientSession) -> None:
    for field in ("input_file_id", "endpoint", "completion_window"):
        status, answer = await post(http, {**REQUEST, field: {"$ne": None}})
        assert (status, answer["error"]["param"]) == (400, field)


async def test_the_provider_follows_from_the_header(service: Any) -> None:
    member = await service.join("both", "openai", "anthropic")
    async with service.client(member) as client:
        batches = [
            await create(client, extra_headers={} if provider is None else {"floopy-provider": provider})
            for provider in (None, "openai", "anthropic")
        ]

    assert [batch.floopy["provider"] for batch in batches] == ["openai", "openai", "anthropic"]
    assert (await service.batch(batches[2].id))["provider"] == "anthropic"


@pytest.mark.surface("3.1 endpoint: Anthropic takes chat only")
async def test_an_endpoint_the_chosen_provider_lacks_is_refused(service: Any) -> None:
    member = await service.join("claude", "anthropic")
    async with service.client(member) as client:
        with pytest.raises(openai.BadRequestError, match="Supported values are: '/v1/chat/completions'"):
            await create(client, endpoint="/v1/embeddings")

    assert await service.count("batches") == 0


async def test_without_an_account_no_batch_is_made(service: Any) -> None:
    member = await service.join("none")
    async with service.client(member) as client:
        with pytest.raises(openai.BadRequestError, match="no provider account"):
            await create(client)
    assert await service.count("batches") == 0


@pytest.mark.surface("5 quota exhausted; 9.16")
async def test_a_used_up_plan_is_told_at_once(service: Any) -> None:
    member = await service.join("small", "openai", plan="free")
    caps = CapStore(service.mongo)
    await caps.reserve(member.org_id, "batch_big", 100_000, 100_000, month_of(datetime.now(UTC)))

    async with service.client(member) as client:
        with pytest.raises(openai.RateLimitError) as refused:
            await create(client)

    assert (refused.value.type, refused.value.code) == ("insufficient_quota", "insufficient_quota")
    assert refused.value.response.headers["x-should-retry"] == "false"


@pytest.mark.surface("3.2 list; 9.3")
async def test_listing_pages_newest_first_without_gaps(client: AsyncOpenAI) -> None:
    made = [(await create(client)).id for _ in range(5)]

    assert [batch.id async for batch in client.batches.list(limit=2)] == made[::-1]


async def test_batches_of_one_moment_are_paged_too(service: Any, client: AsyncOpenAI) -> None:
    made = {(await create(client)).id for _ in range(5)}
    moment = datetime.now(UTC)
    await service.mongo.collection("batches").update_many({}, {"$set": {"created_at": moment}})

    listed = [batch.id async for batch in client.batches.list(limit=2)]

    assert len(listed) == 5
    assert set(listed) == made


@pytest.mark.surface("3.2 list: five fields")
async def test_a_page_has_all_five_fields(http: aiohttp.ClientSession) -> None:
    async with http.get("/v1/batches") as answer:
        assert await answer.json() == {
            "object": "list",
            "data": [],
            "first_id": None,
            "last_id": None,
            "has_more": False,
        }


@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ("limit=0", "limit", "integer_below_min_value"),
        ("limit=101", "limit", "integer_above_max_value"),
        ("limit=x", "limit", "invalid_type"),
        ("limit=", "limit", "invalid_type"),
        ("after=batch_unknown", "after", None),
    ],
)
@pytest.mark.surface("5 limit out of range, limit not an integer, unknown after")
async def test_wrong_list_queries_are_named(
    http: aiohttp.ClientSession, query: str, param: str, code: str | None
) -> None:
    async with http.get(f"/v1/batches?{query}") as answer:
        error = (await answer.json())["error"]

    assert (answer.status, error["param"], error["code"]) == (400, param, code)
