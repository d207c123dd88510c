"""Scripted faults, met by the SDK."""

import http.client
import json
import threading
import time
import urllib.error

import openai
import pytest
from waiting import eventually_sync


def created(account):
    return len(account.client.batches.list().data)


def create(account, file_id):
    return account.client.batches.create(
        input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h"
    )


@pytest.mark.parametrize(("when", "kept"), [("before", 0), ("after", 1)])
def test_a_status_before_or_after_the_effect(account, sim, requests, when, kept):
    file_id = account.upload(requests.many(1))
    sim.script("batches.create", {"kind": "status", "status": 500, "when": when})

    with pytest.raises(openai.InternalServerError) as refused:
        create(account, file_id)

    assert refused.value.type == "server_error"
    assert created(account) == kept
    assert create(account, file_id).status == "validating"


def test_a_status_carries_its_headers_and_body(account, sim):
    action = {
        "kind": "status",
        "status": 429,
        "headers": {"Retry-After": "7"},
        "body": {"error": {"code": "slow"}},
    }
    sim.script("batches.list", action)

    with pytest.raises(openai.RateLimitError) as refused:
        account.client.batches.list()

    assert refused.value.response.headers["retry-after"] == "7"
    assert refused.value.code == "slow"


@pytest.mark.parametrize(("when", "kept"), [("before", 0), ("after", 1)])
def test_a_dropped_connection_before_or_after_the_effect(account, sim, requests, when, kept):
    file_id = account.upload(requests.many(1))
    sim.script("batches.create", {"kind": "drop", "when": when})

    with pytest.raises(openai.APIConnectionError):
        create(account, file_id)

    assert created(account) == kept
    call = [call for call in sim.call("GET", "/ledger")["calls"] if call["key"] == account.key][-2]
    assert (call["op"], call["status"], call["accepted"], call["fault"]) == (
        "batches.create",
        None,
        bool(kept),
        f"drop:{when}",
    )


def test_an_upload_may_be_dropped_too(account, sim, requests):
    sim.script("files.create", {"kind": "drop", "when": "before"})
    sim.script("files.create", {"kind": "drop", "when": "after"})

    for _ in range(2):
        with pytest.raises(openai.APIConnectionError):
            account.upload(requests.many(1000))

    assert len(account.client.files.list().data) == 1


@pytest.mark.parametrize(("when", "meanwhile"), [("before", 0), ("after", 1)])
def test_a_hold_waits_for_its_release(account, sim, requests, when, meanwhile):
    file_id = account.upload(requests.many(1))
    fault = sim.script("batches.create", {"kind": "hold", "when": when})
    answers = []
    thread = threading.Thread(target=lambda: answers.append(create(account, file_id)))
    thread.start()

    eventually_sync(
        lambda: sim.call("GET", f"/faults/{fault}")["waiting"] == 1, timeout=20, what="a held call"
    )
    assert (created(account), answers) == (meanwhile, [])
    sim.call("POST", f"/faults/{fault}/release")
    thread.join()

    assert answers[0].status == "validating"
    assert created(account) == 1


def test_a_delay_is_a_delay(account, sim):
    sim.script("batches.list", {"kind": "delay", "seconds": 0.3})

    started = time.monotonic()
    account.client.batches.list()

    assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize("mode", ["length", "chunked"])
def test_a_truncated_download_is_short(account, sim, requests, mode):
    batch = account.run(requests.many(20))
    whole = account.client.files.content(batch.output_file_id).content
    sim.script("files.content", {"kind": "truncate", "bytes": 500, "mode": mode}, file="output")

    with sim.open(f"/files/{batch.output_file_id}/content", account.key) as response:
        promised = response.headers["content-length"]
        try:
            received = response.read()
            ended_cleanly = True
        except http.client.IncompleteRead as cut:
            received = cut.partial
            ended_cleanly = False

    assert (promised, ended_cleanly) == ((str(len(whole)), False) if mode == "length" else (None, True))
    assert received == whole[:500]
    assert account.client.files.content(batch.output_file_id).content == whole


def test_garbage_is_a_success_that_cannot_be_read(account, sim, requests):
    file_id = account.upload(requests.many(1))
    sim.script("batches.create", {"kind": "garbage"})

    response = account.client.batches.with_raw_response.create(
        input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h"
    )

    assert response.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(response.content)
    assert created(account) == 1


def test_a_patch_bends_the_truth(account, sim, requests):
    batch = account.run(requests.many(1))
    sim.script("batches.get", {"kind": "patch", "body": {"status": "finalizing", "output_file_id": None}})

    bent, true = (account.client.batches.retrieve(batch.id) for _ in range(2))

    assert (bent.status, bent.output_file_id) == ("finalizing", None)
    assert true.to_dict() == batch.to_dict()


def test_times_skip_key_and_path_choose_the_calls(account, sim, make_account, requests):
    action = {"kind": "status", "status": 503}
    other = make_account(sim)
    fault = sim.script("batches.list", action, times=2, key=account.key, skip=1, path_contains="limit=7")

    def status(of, limit):
        try:
            of.client.batches.list(limit=limit)
        except openai.APIStatusError as error:
            return error.status_code
        return 200

    assert status(other, 7) == 200
    assert status(account, 8) == 200
    assert [status(account, 7) for _ in range(4)] == [200, 503, 503, 200]
    shown = sim.call("GET", f"/faults/{fault}")
    assert (shown["hits"], shown["seen"]) == (2, 3)


def test_an_endless_fault_ends_when_it_is_deleted(account, sim):
    fault = sim.script("batches.list", {"kind": "status", "status": 500}, times=None)

    for _ in range(3):
        with pytest.raises(openai.InternalServerError):
            account.client.batches.list()
    sim.call("DELETE", f"/faults/{fault}")

    assert account.client.batches.list().data == []
    assert sim.call("GET", "/faults")["faults"] == []


@pytest.mark.parametrize(
    "fault",
    [
        {"match": {"op": "batches.list"}, "action": {"kind": "explode"}},
        {"match": {"pp": "batches.list"}, "action": {"kind": "garbage"}},
        {"match": {"op": "batch.list"}, "action": {"kind": "garbage"}},
        {"action": {"kind": "garbage"}},
    ],
    ids=["kind", "match", "op", "no match"],
)
def test_a_fault_that_is_not_understood_is_refused(sim, fault):
    with pytest.raises(urllib.error.HTTPError) as refused:
        sim.call("POST", "/faults", fault)

    with refused.value as response:
        assert response.status == 400
        assert json.load(response)["error"]
