"""Creating, reading, listing and cancelling batches."""

import asyncio
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import msgspec
import openai
import pytest
from openai import AsyncOpenAI

from floopy_api.core.authentication import Caller
from floopy_api.core.files import Stored, Wish, file_document
from floopy_api.handlers.keys import BLOBS
from floopy_common.chassis.mongo import Collection
from floopy_common.stores.batches import BatchStore
from floopy_common.stores.caps import CapStore, month_of

LINE = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{}}\n'
REQUEST = {"input_file_id": "file-x", "endpoint": "/v1/chat/completions", "completion_window": "24h"}


async def create(client: AsyncOpenAI, **changes: Any) -> Any:
    return await client.batches.create(**{**REQUEST, **changes})


async def post(http: aiohttp.ClientSession, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    headers = {"Content-Type": "application/json", **headers}
    async with http.post("/v1/batches", data=content, headers=headers) as answer:
        return answer.status, await answer.json()


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
