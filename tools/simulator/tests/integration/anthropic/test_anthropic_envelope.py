"""What is refused at once: headers, envelopes, sizes and URLs."""

import json

import pytest

BATCHES = "/messages/batches"


def request(custom_id="a", **more):
    return {"custom_id": custom_id, "params": {"model": "x"}, **more}


@pytest.mark.parametrize(
    ("headers", "status", "kind", "message"),
    [
        ({"x_api_key": None}, 401, "authentication_error", "x-api-key header is required"),
        ({"x_api_key": "nonsense"}, 401, "authentication_error", "invalid x-api-key"),
        ({"x_api_key": None, "authorization": "Bearer zz"}, 401, "authentication_error", "invalid x-api-key"),
        ({"anthropic_version": None}, 400, "invalid_request_error", "anthropic-version: header is required"),
        (
            {"anthropic_version": "2024-10-22"},
            400,
            "invalid_request_error",
            'anthropic-version: "2024-10-22" is not a valid version',
        ),
        (
            {"anthropic_beta": "message-batches-2024-09-24,new-thing-2030-01-01"},
            400,
            "invalid_request_error",
            "Unexpected value(s) `new-thing-2030-01-01` for the `anthropic-beta` header.",
        ),
    ],
)
def test_headers_are_checked_first(claude, headers, status, kind, message):
    reply = claude.raw("GET", BATCHES, **headers)

    assert (reply.status, reply.body["type"]) == (status, "error")
    assert reply.body["error"] == {"type": kind, "message": message}
    assert reply.body["request_id"] == reply.headers["request-id"]


@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
def test_both_versions_and_both_ways_to_send_a_key_are_good(claude, many, version):
    batch_id = claude.create(*many(1))

    as_key = claude.raw("GET", f"{BATCHES}/{batch_id}", anthropic_version=version)
    bearer = claude.raw(
        "GET",
        f"{BATCHES}/{batch_id}",
        x_api_key=None,
        authorization=f"Bearer {claude.key}",
        anthropic_version=version,
        anthropic_beta="message-batches-2024-09-24, output-300k-2026-03-24",
    )

    assert as_key.status == bearer.status == 200
    assert "anthropic-ratelimit-requests-reset" in as_key.headers


def test_a_revoked_key_is_refused(claude, sim):
    sim.configure(revoked_keys=[claude.key])

    assert claude.raw("GET", BATCHES).status == 401


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "requests: Field required"),
        ({"requests": []}, "requests: List should have at least 1 item after validation, not 0"),
        ({"requests": {}}, "requests: Input should be a valid list"),
        ({"requests": [request()], "metadata": {}}, "metadata: Extra inputs are not permitted"),
        ({"requests": [{"params": {}}]}, "requests.0.custom_id: Field required"),
        ({"requests": [{"custom_id": "a"}]}, "requests.0.params: Field required"),
        ({"requests": [request(url="/x")]}, "requests.0.url: Extra inputs are not permitted"),
        ({"requests": [request(params=[])]}, "requests.0.params: Input should be an object"),
        (
            {"requests": [request("ok"), request("a b")]},
            "requests.1.custom_id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'",
        ),
        ({"requests": [request("é")]}, "requests.0.custom_id: String should match pattern"),
        ({"requests": [request("a\n")]}, "requests.0.custom_id: String should match pattern"),
        ({"requests": [request("x" * 65)]}, "requests.0.custom_id: String should have at most 64 characters"),
        ({"requests": [request("")]}, "requests.0.custom_id: String should have at least 1 character"),
        (
            {"requests": [request(), request("b"), request()]},
            "requests.2.custom_id: custom_id must be unique",
        ),
        (b'{"requests": [', "The request body is not valid JSON"),
        (
            b'{"requests": [{"custom_id": "a", "params": {"x": "\xff"}}]}',
            "The request body is not valid JSON",
        ),
    ],
)
def test_one_bad_envelope_refuses_the_whole_create(claude, body, message):
    reply = claude.raw("POST", BATCHES, body)

    assert (reply.status, reply.body["error"]["type"]) == (400, "invalid_request_error")
    assert reply.body["error"]["message"].startswith(message)
    assert claude.raw("GET", BATCHES).body["data"] == []


def test_custom_ids_of_64_characters_are_good(claude):
    reply = claude.raw("POST", BATCHES, {"requests": [request("aZ09_-" + "x" * 58)]})

    assert reply.status == 200


@pytest.mark.parametrize("limit", [{"max_requests": 2}, {"max_batch_bytes": 100_000}], ids=str)
def test_what_is_too_large_never_reaches_the_api_and_its_envelope(claude, sim, limit):
    sim.configure(**limit)
    body = {"requests": [{"custom_id": f"c{n}", "params": {"x": "y" * 50_000}} for n in range(3)]}

    reply = claude.raw("POST", BATCHES, body)

    assert (reply.status, reply.headers.get_content_type()) == (413, "text/html")
    with pytest.raises(json.JSONDecodeError):
        json.loads(reply.content)
    assert claude.raw("GET", BATCHES).body["data"] == []
    assert claude.raw("POST", BATCHES, {"requests": [request()]}).status == 200


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("limit=0", "limit: Input should be greater than or equal to 1"),
        ("limit=1001", "limit: Input should be less than or equal to 1000"),
        ("limit=ten", "limit: Input should be a valid integer"),
        ("after_id=msgbatch_x", "after_id: Invalid pagination cursor"),
        ("before_id=msgbatch_x", "before_id: Invalid pagination cursor"),
        ("after_id=a&before_id=b", "Only one of"),
    ],
)
def test_a_bad_page_is_refused(claude, query, message):
    reply = claude.raw("GET", f"{BATCHES}?{query}")

    assert reply.status == 400
    assert reply.body["error"]["message"].startswith(message)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/completions", 404),
        ("PUT", BATCHES, 405),
        ("GET", "/messages", 405),
        ("GET", BATCHES + "/x", 404),
    ],
)
def test_urls_that_do_not_exist(claude, method, path, status):
    reply = claude.raw(method, path)

    assert (reply.status, reply.body["type"]) == (status, "error")
