"""What is refused before a route sees it, equal requests in flight, and an organisation's share."""

import asyncio
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI
from typing_extensions import override
from waiting import eventually

from floopy_api.core.sendings import Sending, look
from floopy_common.settings import ApiSettings
from floopy_common.stores.batches import BatchStore
from floopy_common.stores.files import FileStore

REQUEST: dict[str, Any] = {
    "input_file_id": "file-x",
    "endpoint": "/v1/chat/completions",
    "completion_window": "24h",
}


async def raw(url: str, sent: bytes) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body) of what comes back until the server closes."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, body


MALFORMED = [
    b"nonsense\r\n\r\n",
    b"GET /v1/files HTTP/9.9\r\n\r\n",
    b"GET /v1/files HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
    b"GET /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + b"k" * 40_000 + b"\r\n\r\n",
    b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /v1/batches HTTP/1.1\r\nHost: x\r\nContent-Length: ten\r\n\r\n",
    b"POST /v1/batches HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"G\x00T /v1/files HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
]


@pytest.mark.surface("5 the envelope on malformed heads")
@pytest.mark.parametrize("sent", MALFORMED, ids=range(len(MALFORMED)))
async def test_a_malformed_head_is_answered_in_the_envelope(service: Any, sent: bytes) -> None:
    status, headers, body = await raw(service.url, sent)

    assert (status, headers["content-type"]) == (400, "application/json")
    error = json.loads(body)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert headers["x-request-id"].startswith("req_")
    assert b"kkkk" not in body


@pytest.mark.surface("5 the envelope on malformed heads: an expectation nobody has")
@pytest.mark.parametrize("path", ["/v1/batches", "/v1/nowhere", "/healthz"])
async def test_an_unknown_expectation_is_answered_in_the_envelope(service: Any, path: str) -> None:
    sent = f"GET {path} HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\nConnection: close\r\n\r\n"

    status, headers, body = await raw(service.url, sent.encode())

    assert (status, headers["content-type"]) == (417, "application/json")
    error = json.loads(body)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("invalid_request_error", None)
    assert headers["x-request-id"].startswith("req_")
    assert "miracles" not in error["message"]


async def test_a_client_that_waits_to_be_asked_for_its_json_is_asked(service: Any, alice: Any) -> None:
    body = json.dumps(REQUEST)
    sent = (
        f"POST /v1/batches HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {alice.api_key}\r\n"
        f"Expect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"Connection: close\r\n\r\n{body}"
    )

    status, _, answer = await raw(service.url, sent.encode())

    assert status == 100
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.surface("5 the envelope: malformed JSON, malformed multipart, 415, 413")
@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        ("/v1/batches", {"Content-Type": "application/json"}, b"{", 400),
        ("/v1/batches", {"Content-Encoding": "gzip"}, b"{}", 415),
        ("/v1/batches", {"Content-Type": "application/json"}, None, 413),
        ("/v1/uploads", {"Content-Type": "application/json"}, b"[1,", 400),
        ("/v1/files", {"Content-Type": "multipart/form-data"}, b"x", 400),
        ("/v1/files", {"Content-Type": "multipart/form-data; boundary=a"}, b"--b\r\n", 400),
        ("/v1/files", {"Content-Type": "application/json"}, b"{}", 415),
    ],
)
async def test_a_malformed_body_is_answered_in_the_envelope(
    http: aiohttp.ClientSession, path: str, headers: dict[str, str], body: bytes | None, status: int
) -> None:
    content = io.BytesIO(b" " * (1024 * 1024 + 1)) if body is None else body
    async with http.post(path, data=content, headers=headers) as answer:
        assert (answer.status, answer.content_type) == (status, "application/json")
        assert (await answer.json())["error"].keys() == {"message", "type", "param", "code"}


@pytest.mark.surface("5 415: another media type, in OpenAI's words")
@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/v1/batches", "application/json"),
        ("/v1/uploads", "application/json"),
        ("/v1/uploads/upload_x/complete", "application/json"),
        ("/v1/files", "multipart/form-data"),
        ("/v1/uploads/upload_x/parts", "multipart/form-data"),
    ],
)
@pytest.mark.parametrize("sent", ["text/plain", "application/x-www-form-urlencoded", "a\u00e9/b", "nonsense"])
async def test_another_media_type_is_named_beside_the_one_that_is_taken(
    http: aiohttp.ClientSession, path: str, wanted: str, sent: str
) -> None:
    async with http.post(path, data=b"{}", headers={"Content-Type": sent}) as answer:
        error = (await answer.json())["error"]

    assert (answer.status, error["type"]) == (415, "invalid_request_error")
    assert (error["code"], error["param"]) == ("unsupported_content_type", None)
    assert error["message"].startswith(f"Unsupported content type: '{sent}'.")
    assert f"only accepts '{wanted}' requests" in error["message"]


@pytest.mark.parametrize(
    "sent", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.api+json", "", None]
)
async def test_json_may_call_itself_in_several_ways_or_not_at_all(
    http: aiohttp.ClientSession, sent: str | None
) -> None:
    headers = {} if sent is None else {"Content-Type": sent}
    skipped = ["Content-Type"] if sent is None else None
    body = json.dumps(REQUEST).encode()
    async with http.post("/v1/batches", data=body, headers=headers, skip_auto_headers=skipped) as answer:
        assert answer.status == 200


def held_back(monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """(the first create has come as far as its file, let it go on)."""
    arrived, go_on = asyncio.Event(), asyncio.Event()
    original = FileStore.get_owned

    async def get_owned(store: FileStore, *args: Any) -> Any:
        if not arrived.is_set():
            arrived.set()
            await go_on.wait()
        return await original(store, *args)

    monkeypatch.setattr(FileStore, "get_owned", get_owned)
    return arrived, go_on


@pytest.mark.surface("5.2 a repeat of a create that is still in flight makes no second batch")
@pytest.mark.parametrize("is_first", [True, False], ids=["the first wins", "the repeat wins"])
async def test_a_repeat_of_a_create_in_flight_gets_the_same_batch(
    service: Any, client: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch, is_first: bool
) -> None:
    counts = [0, 1] if is_first else [1, 0]
    headers = [{"x-stainless-retry-count": str(count)} for count in counts]
    arrived, go_on = held_back(monkeypatch)
    slow = asyncio.create_task(client.batches.create(**REQUEST, extra_headers=headers[1]))
    await arrived.wait()
    quick = await client.batches.create(**REQUEST, extra_headers=headers[0])
    go_on.set()

    assert (await slow).id == quick.id
    assert await service.count("batches") == 1


@pytest.mark.surface("5.2 sendings of one request that all arrive at once make one batch")
async def test_sendings_at_once_make_one_batch(service: Any, client: AsyncOpenAI) -> None:
    for _ in range(5):
        # with the connections open no sending comes in when another's batch is made already
        await asyncio.gather(*(client.batches.list() for _ in range(3)))
        await service.mongo.collection("batches").delete_many({})
        sendings = (
            client.batches.create(**REQUEST, extra_headers={"x-stainless-retry-count": str(count)})
            for count in range(3)
        )
        assert len({batch.id for batch in await asyncio.gather(*sendings)}) == 1


class _Joined(BatchStore):
    """Lets the first sending join the second repeat's batch just before the first repeat would."""

    @override
    async def join_later_sending(
        self, api_key_id: str, request_hash: str, since: datetime, count: int
    ) -> dict[str, Any] | None:
        await super().join_later_sending(api_key_id, request_hash, since, 0)
        return await super().join_later_sending(api_key_id, request_hash, since, count)


async def test_a_repeat_meets_a_batch_that_an_earlier_sending_joins_between_its_looks(service: Any) -> None:
    now = datetime.now(UTC)
    batch = {"_id": "batch_1", "api_key_id": "key_1", "request_hash": "h", "nth": 0, "sendings": [2]}
    await service.mongo.collection("batches").insert_new({**batch, "created_at": now})
    began = now - timedelta(milliseconds=5)

    found, number = await look(_Joined(service.mongo), Sending("key_1", "h", 1, began), now)

    assert found is not None
    assert (found["_id"], number) == ("batch_1", 1)
    (stored,) = await service.mongo.collection("batches").find_all({}, {"sendings": 1})
    assert stored["sendings"] == [2, 0, 1]


async def test_equal_creates_at_once_that_are_no_repeats_are_as_many_batches(
    service: Any, client: AsyncOpenAI
) -> None:
    made = await asyncio.gather(*(client.batches.create(**REQUEST) for _ in range(20)))

    assert len({batch.id for batch in made}) == await service.count("batches") == 20


async def test_a_create_after_a_repeat_whose_first_sending_was_lost_is_its_own(client: AsyncOpenAI) -> None:
    repeat = await client.batches.create(**REQUEST, extra_headers={"x-stainless-retry-count": "1"})

    assert (await client.batches.create(**REQUEST)).id != repeat.id


@pytest.mark.surface("5 429 rate_limit_exceeded; 9.16")
async def test_more_than_an_organisations_share_is_told_when_to_come_again(serving: Any) -> None:
    async with serving(api=ApiSettings(creates_per_minute=2)) as service:
        alice, bob = [await service.join(name, "openai") for name in ("alice", "bob")]
        async with service.client(alice) as client, service.client(bob) as other:
            for _ in range(2):
                await client.batches.create(**REQUEST)
            with pytest.raises(openai.RateLimitError) as refused:
                await client.batches.create(**REQUEST)
            await other.batches.create(**REQUEST)
            await client.batches.list()

    error = refused.value
    assert (error.type, error.code, error.param) == ("requests", "rate_limit_exceeded", None)
    assert "Limit: 2 / min" in error.message
    assert 1 <= int(error.response.headers["retry-after"]) <= 60
    assert "x-should-retry" not in error.response.headers


@pytest.mark.surface("5 429 rate_limit_exceeded: uploads at once")
async def test_more_uploads_at_once_than_an_organisations_share_are_refused(serving: Any) -> None:
    async with serving(api=ApiSettings(uploads_at_once=1)) as service:
        alice = await service.join("alice", "openai")
        async with service.http(alice) as http:
            form = {"Content-Type": "multipart/form-data; boundary=a"}
            host, port = service.url.removeprefix("http://").split(":")
            _, writer = await asyncio.open_connection(host, int(port))
            head = f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {alice.api_key}\r\n"
            writer.write(f"{head}Content-Type: {form['Content-Type']}\r\nContent-Length: 99\r\n\r\n".encode())

            async def is_refused() -> bool:
                async with http.post("/v1/files", data=b"--a--\r\n", headers=form) as answer:
                    return answer.status == 429

            async def is_taken() -> bool:
                async with http.post("/v1/files", data=b"--a--\r\n", headers=form) as answer:
                    return answer.status == 400

            await eventually(is_refused, timeout=10, what="a refusal")
            writer.close()
            await eventually(is_taken, timeout=10, what="a request that is taken again")


@pytest.mark.surface("3.2 retrieve: a finished batch; 9.14: of another organisation it is unknown")
async def test_a_finished_batch_is_answered_from_memory_to_its_owner_alone(
    service: Any, client: AsyncOpenAI, mallory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = (await client.batches.create(**REQUEST)).id
    await service.write(batch_id, **{"status": "completed", "audit.balanced": True})
    with service.queries_counted(monkeypatch, "batches") as queries:
        first, again = [await client.batches.retrieve(batch_id) for _ in range(2)]
        async with service.client(mallory) as other:
            with pytest.raises(openai.NotFoundError):
                await other.batches.retrieve(batch_id)

    assert first == again
    assert len(queries) == 2


async def test_an_unbalanced_batch_is_never_answered_from_memory(service: Any, client: AsyncOpenAI) -> None:
    batch_id = (await client.batches.create(**REQUEST)).id
    await service.write(batch_id, status="completed")
    assert not (await client.batches.retrieve(batch_id)).floopy["balanced"]

    await service.write(batch_id, **{"audit.balanced": True})

    assert (await client.batches.retrieve(batch_id)).floopy["balanced"]


async def test_reads_leave_out_what_they_do_not_show(service: Any, alice: Any, client: AsyncOpenAI) -> None:
    batch_id = (await client.batches.create(**REQUEST)).id

    found = await BatchStore(service.mongo).get_owned(alice.org_id, batch_id)

    assert found is not None
    assert not {"input", "outbox", "lease"} & found.keys()
