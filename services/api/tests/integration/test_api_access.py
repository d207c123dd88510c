"""Who gets in, and what one organisation may learn of another: nothing."""

import asyncio
import re
import string
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI
from pydantic import SecretStr
from waiting import eventually

from floopy_api.handlers.middleware import PUBLIC_PATHS
from floopy_common.chassis.secrets import Keyring, new_api_key
from floopy_common.settings import ApiSettings
from floopy_common.stores.api_keys import ApiKeyStore

LINE = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{}}\n'
SECRET = SecretStr("a secret for tests that is long enough")


def routes(service: Any) -> list[tuple[str, str]]:
    """Every (method, path) that is served, with ids filled in."""
    return [
        (route.method, re.sub(r"\{(\w+)\}", r"\1-x", route.resource.canonical))
        for route in service.app.router.routes()
    ]


@pytest.mark.surface("5 missing key")
async def test_no_route_but_the_probes_answers_without_a_key(service: Any) -> None:
    async with service.http() as http:
        for method, path in routes(service):
            async with http.request(method, path) as answer:
                expected = 200 if path in PUBLIC_PATHS else 401
                assert (method, path, answer.status) == (method, path, expected)
                if expected == 401:
                    error = (await answer.json())["error"]
                    assert error["type"] == "invalid_request_error"
                    assert error["message"].startswith("You didn't provide an API key.")


MALFORMED = [
    "",
    "Bearer",
    "Bearer ",
    "Bearer x",
    "Basic dXNlcjpwYXNz",
    "flp_" + "0" * 43 + "_000000",
    "Bearer " + "k" * 10_000,
    "Bearer flp_\u00e9\u00e9",
    'Bearer {"$gt": ""}',
    "Bearer ['a']",
    "Bearer Bearer " + new_api_key().get_secret_value(),
    "Bearer " + new_api_key().get_secret_value()[:-1] + "!",
    "Bearer " + new_api_key().get_secret_value().swapcase(),
]


@pytest.mark.surface("5 wrong key")
async def test_a_malformed_key_never_reaches_the_database(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with service.queries_counted(monkeypatch, "api_keys") as queries:
        async with service.http() as http:
            for value in MALFORMED:
                async with http.get("/v1/batches", headers={"Authorization": value}) as answer:
                    assert (value[:40], answer.status) == (value[:40], 401)
    assert queries == []


async def test_two_authorizations_are_none(service: Any, alice: Any) -> None:
    twice = [("Authorization", f"Bearer {alice.api_key}")] * 2
    async with service.http() as http, http.get("/v1/batches", headers=twice) as answer:
        assert answer.status == 401


async def test_a_key_in_the_url_is_none(service: Any, alice: Any) -> None:
    async with service.http() as http, http.get(f"/v1/batches?api_key={alice.api_key}") as answer:
        assert answer.status == 401


async def test_an_unknown_key_is_incorrect_and_looked_up_once(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_api_key().get_secret_value()
    with service.queries_counted(monkeypatch, "api_keys") as queries:
        async with service.http() as http:
            for _ in range(3):
                headers = {"Authorization": f"Bearer {key}"}
                async with http.get("/v1/batches", headers=headers) as answer:
                    error = (await answer.json())["error"]
                    assert (answer.status, error["code"]) == (401, "invalid_api_key")
                    assert key[4:20] not in str(error)
    assert len(queries) == 1


async def test_a_good_key_is_looked_up_once(
    service: Any, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    with service.queries_counted(monkeypatch, "api_keys") as queries:
        for _ in range(3):
            async with http.get("/v1/batches") as answer:
                assert answer.status == 200
    assert len(queries) == 1


async def test_a_revoked_key_is_dead_once_it_is_forgotten(serving: Any) -> None:
    async with serving(api=ApiSettings(key_cache=0.2)) as service:
        alice = await service.join("alice")
        async with service.http(alice) as http:
            async with http.get("/v1/batches") as answer:
                assert answer.status == 200
            await ApiKeyStore(service.mongo, Keyring(SECRET)).revoke(alice.org_id, alice.key_id)

            async def is_refused() -> bool:
                async with http.get("/v1/batches") as answer:
                    return answer.status == 401

            await eventually(is_refused, timeout=10, what="a refusal of the revoked key")


async def test_two_keys_of_one_organisation_see_the_same(
    service: Any, alice: Any, client: AsyncOpenAI
) -> None:
    file = await client.files.create(file=("in.jsonl", LINE), purpose="batch")
    async with service.client(await service.another_key(alice)) as colleague:
        assert (await colleague.files.retrieve(file.id)) == file


async def _refusal(http: aiohttp.ClientSession, method: str, path: str, name: str) -> tuple[int, Any, Any]:
    async with http.request(method, path.format(id=name)) as answer:
        body = (await answer.read()).replace(name.encode(), b"ID")
        volatile = {"x-request-id", "openai-processing-ms", "date", "content-length"}
        headers = {key: value for key, value in answer.headers.items() if key.lower() not in volatile}
        return answer.status, body, headers


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/files/{id}"),
        ("DELETE", "/v1/files/{id}"),
        ("GET", "/v1/files/{id}/content"),
        ("GET", "/v1/files?after={id}"),
        ("GET", "/v1/batches/{id}"),
        ("POST", "/v1/batches/{id}/cancel"),
        ("GET", "/v1/batches?after={id}"),
    ],
)
async def test_a_foreign_id_is_byte_for_byte_an_unknown_one(
    service: Any, client: AsyncOpenAI, mallory: Any, method: str, path: str
) -> None:
    file = await client.files.create(file=("in.jsonl", LINE), purpose="batch")
    batch = await client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    foreign = file.id if "files" in path else batch.id
    unknown = foreign.translate(str.maketrans(string.hexdigits[:10], "1234567890"))

    async with service.http(mallory) as http:
        assert await _refusal(http, method, path, foreign) == await _refusal(http, method, path, unknown)
        assert (await _refusal(http, method, path, foreign))[0] in {400, 404}
    assert (await client.files.retrieve(file.id)).id == file.id
    assert (await client.batches.retrieve(batch.id)).status == "validating"


async def test_a_foreign_input_file_is_an_unknown_one(
    service: Any, client: AsyncOpenAI, mallory: Any
) -> None:
    file = await client.files.create(file=("in.jsonl", LINE), purpose="batch")
    async with service.client(mallory) as other:
        batch = await other.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )

    assert (await service.batch(batch.id))["input"] is None
    blob = await service.mongo.collection("blobs").find_one({})
    assert blob["pins"] == []


async def test_lists_never_hold_what_is_foreign(service: Any) -> None:
    members = [await service.join(f"org{number}", "openai") for number in range(3)]
    owned: dict[str, list[str]] = {}

    async def fill(member: Any) -> None:
        async with service.client(member) as client:
            for _ in range(4):
                file = await client.files.create(file=("in.jsonl", LINE), purpose="batch")
                batch = await client.batches.create(
                    input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
                )
                owned.setdefault(member.org_id, []).extend([file.id, batch.id])

    await asyncio.gather(*(fill(member) for member in members))

    for member in members:
        async with service.client(member) as client:
            seen = [file.id async for file in client.files.list(limit=3)]
            seen += [batch.id async for batch in client.batches.list(limit=3)]
        assert sorted(seen) == sorted(owned[member.org_id])
