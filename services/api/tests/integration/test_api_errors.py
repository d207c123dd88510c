"""What is the same for every answer: the envelope, the headers, and what an outage looks like."""

import logging
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import REGISTRY
from waiting import eventually

from floopy.backends.mongod import Mongod
from floopy_common.settings import MongoSettings
from floopy_common.stores.batches import BatchStore


@pytest.mark.surface("5 404")
async def test_an_unknown_url_is_told_with_or_without_a_key(
    service: Any, http: aiohttp.ClientSession
) -> None:
    async with service.http() as stranger:
        for session in (http, stranger):
            async with session.post("/v1/chat/completions") as answer:
                assert answer.status == 404
                assert (await answer.json()) == {
                    "error": {
                        "message": "Invalid URL (POST /v1/chat/completions)",
                        "type": "invalid_request_error",
                        "param": None,
                        "code": None,
                    }
                }


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/files", "GET, POST"),
        ("POST", "/v1/files/file-x", "DELETE, GET"),
        ("DELETE", "/v1/batches/batch_x", "GET"),
        ("GET", "/v1/batches/batch_x/cancel", "POST"),
    ],
)
@pytest.mark.surface("5 405")
async def test_another_method_is_told_what_is_allowed(
    http: aiohttp.ClientSession, method: str, path: str, allowed: str
) -> None:
    async with http.request(method, path) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, allowed)
        assert (await answer.json())["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", ["/v1/batches", "/v1/batches/batch_x", "/v1/nowhere", "/healthz"])
@pytest.mark.surface("5.1 x-request-id, openai-version, openai-processing-ms, openai-organization")
async def test_every_answer_has_the_headers(alice: Any, http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(path, headers={"x-request-id": "mine"}) as answer:
        headers = answer.headers

    assert re.fullmatch(r"req_[0-9a-f]{32}", headers["x-request-id"])
    assert headers["openai-processing-ms"].isdigit()
    assert headers["openai-version"] == "2020-10-01"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Server"] == "floopy"
    assert headers.get("openai-organization") == (alice.org_id if "batches" in path else None)


@pytest.mark.surface("5.1 X-Client-Request-Id is logged")
@pytest.mark.parametrize("header", ["X-Client-Request-Id", "x-request-id"])
async def test_the_clients_own_request_id_is_for_the_log(
    http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture, header: str
) -> None:
    caplog.set_level(logging.INFO, logger="floopy_api")
    async with http.get("/v1/batches", headers={header: "mine-1"}) as answer:
        given = answer.headers["x-request-id"]

    (line,) = [record for record in caplog.records if record.message == "request"]
    assert (line.__dict__["client_request_id"], line.__dict__["request_id"]) == ("mine-1", given)


async def test_no_log_line_holds_a_key_or_a_query(
    alice: Any, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="floopy_api")
    async with http.get("/v1/batches?after=secret-cursor&key=canary"):
        pass

    written = "".join(str(record.__dict__) for record in caplog.records if record.name != "aiohttp.client")
    assert alice.api_key not in written
    assert "canary" not in written


@pytest.mark.surface("5 server fault")
async def test_a_bug_is_answered_without_details_and_logged_with_the_request(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise KeyError("the inside")

    monkeypatch.setattr(BatchStore, "get_owned", broken)
    async with http.get("/v1/batches/batch_x") as answer:
        error = (await answer.json())["error"]

    assert (answer.status, error["type"], error["code"]) == (500, "server_error", None)
    assert "inside" not in str(error)
    (record,) = [found for found in caplog.records if found.levelname == "ERROR"]
    assert record.__dict__["request_id"] == answer.headers["x-request-id"]
    assert record.exc_info is not None


@pytest.mark.surface("5 overloaded")
async def test_an_outage_of_the_database_is_a_503_that_passes(serving_at: Any, tmp_path: Path) -> None:
    mongod = Mongod(tmp_path, cache_gb=0.25)
    uri = await mongod.start()
    settings = MongoSettings(uri=uri, database="outage", timeout=1.0)
    try:
        async with serving_at(uri, "outage", mongo=settings) as service:
            alice = await service.join("alice", "openai")
            async with service.http(alice) as http:
                async with http.get("/v1/batches") as answer:
                    assert answer.status == 200
                await mongod.kill()
                async with http.get("/v1/batches") as answer:
                    assert answer.status == 503
                    assert answer.headers["retry-after"] == "2"
                    assert (await answer.json())["error"]["type"] == "server_error"
                await mongod.start()

                async def answers_again() -> bool:
                    async with http.get("/v1/batches") as answer:
                        return answer.status == 200

                await eventually(answers_again, what="an answer again")
    finally:
        await mongod.kill()


def _requests(**labels: str) -> float:
    return REGISTRY.get_sample_value("floopy_api_requests_total", labels) or 0.0


async def test_requests_are_counted_by_route_without_ids(http: aiohttp.ClientSession) -> None:
    route = "/v1/batches/{batch_id}"
    found = _requests(route=route, method="GET", status="404")
    unknown = _requests(route="unknown", method="other", status="404")

    for name in ("batch_1", "batch_2"):
        async with http.get(f"/v1/batches/{name}"):
            pass
    async with http.request("PROPFIND", "/v1/files-of-mine"):
        pass

    assert _requests(route=route, method="GET", status="404") == found + 2
    assert _requests(route="unknown", method="other", status="404") == unknown + 1


async def test_bytes_are_counted_both_ways(http: aiohttp.ClientSession) -> None:
    labels = {"route": "/v1/files/{file_id}/content"}
    sent = REGISTRY.get_sample_value("floopy_api_sent_bytes_total", labels) or 0.0
    received = REGISTRY.get_sample_value("floopy_api_received_bytes_total", {"route": "/v1/files"}) or 0.0
    form = aiohttp.FormData({"purpose": "user_data"})
    form.add_field("file", b"x" * 10_000, filename="x")
    async with http.post("/v1/files", data=form) as answer:
        file_id = (await answer.json())["id"]
    async with http.get(f"/v1/files/{file_id}/content") as answer:
        await answer.read()

    assert (REGISTRY.get_sample_value("floopy_api_sent_bytes_total", labels) or 0.0) == sent + 10_000
    after = REGISTRY.get_sample_value("floopy_api_received_bytes_total", {"route": "/v1/files"}) or 0.0
    assert 10_000 < after - received < 11_000


async def test_the_probes_answer_on_the_public_port(service: Any) -> None:
    async with service.http() as http:
        for path in ("/healthz", "/readyz"):
            async with http.get(path) as answer:
                assert answer.status == 200
