"""Scripted faults on Anthropic's calls."""

import http.client
import json
import threading
import time
import urllib.request

import anthropic
import pytest
from waiting import eventually_sync


def created(claude):
    return len(claude.client.messages.batches.list().data)


@pytest.mark.parametrize(("when", "kept"), [("before", 0), ("after", 1)])
def test_a_status_before_or_after_the_effect(claude, sim, many, when, kept):
    sim.script("messages.batches.create", {"kind": "status", "status": 529, "when": when})

    with pytest.raises(anthropic.APIStatusError) as refused:
        claude.create(*many(1))

    assert (refused.value.status_code, refused.value.body["error"]["type"]) == (529, "overloaded_error")
    assert refused.value.body["request_id"] == refused.value.response.headers["request-id"]
    assert created(claude) == kept


@pytest.mark.parametrize(("when", "kept"), [("before", 0), ("after", 1)])
def test_a_dropped_connection_before_or_after_the_effect(claude, sim, many, when, kept):
    sim.script("messages.batches.create", {"kind": "drop", "when": when})

    with pytest.raises(anthropic.APIConnectionError):
        claude.create(*many(1))

    assert created(claude) == kept


def test_a_hold_waits_for_its_release(claude, sim, many):
    fault = sim.script("messages.batches.create", {"kind": "hold", "when": "after"})
    answers = []
    thread = threading.Thread(target=lambda: answers.append(claude.create(*many(1))))
    thread.start()

    eventually_sync(
        lambda: sim.call("GET", f"/faults/{fault}")["waiting"] == 1, timeout=20, what="a held call"
    )
    assert (created(claude), answers) == (1, [])
    sim.call("POST", f"/faults/{fault}/release")
    thread.join()

    assert claude.get(answers[0]).id == answers[0]


@pytest.mark.parametrize("mode", ["length", "chunked"])
def test_truncated_results_are_short(claude, sim, many, mode):
    batch = claude.run(*many(20))
    whole = claude.raw("GET", f"/messages/batches/{batch.id}/results").content
    sim.script("messages.batches.results", {"kind": "truncate", "bytes": 500, "mode": mode})
    headers = {"x-api-key": claude.key, "anthropic-version": "2023-06-01"}

    with urllib.request.urlopen(urllib.request.Request(batch.results_url, headers=headers)) as response:
        promised = response.headers["content-length"]
        try:
            received, cleanly = response.read(), True
        except http.client.IncompleteRead as cut:
            received, cleanly = cut.partial, False

    assert (promised, cleanly) == ((str(len(whole)), False) if mode == "length" else (None, True))
    assert received == whole[:500]


def test_garbage_is_a_success_that_cannot_be_read(claude, sim, many):
    sim.script("messages.batches.create", {"kind": "garbage"})

    reply = claude.raw("POST", "/messages/batches", {"requests": [{"custom_id": "a", "params": many(1)[0]}]})

    assert reply.status == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(reply.content)
    assert created(claude) == 1


@pytest.mark.parametrize(
    ("op", "call"),
    [
        ("messages.batches.list", lambda claude, batch: claude.raw("GET", "/messages/batches")),
        ("messages.batches.get", lambda claude, batch: claude.raw("GET", f"/messages/batches/{batch}")),
        (
            "messages.batches.cancel",
            lambda claude, batch: claude.raw("POST", f"/messages/batches/{batch}/cancel"),
        ),
        ("messages.batches.delete", lambda claude, batch: claude.raw("DELETE", f"/messages/batches/{batch}")),
        (
            "messages.batches.results",
            lambda claude, batch: claude.raw("GET", f"/messages/batches/{batch}/results"),
        ),
        ("messages", lambda claude, batch: claude.raw("POST", "/messages", {})),
        ("models.list", lambda claude, batch: claude.raw("GET", "/models")),
        ("models.get", lambda claude, batch: claude.raw("GET", "/models/claude-opus-5")),
    ],
)
def test_every_call_can_be_met(claude, sim, op, call):
    action = {"kind": "status", "status": 429, "headers": {"Retry-After": "3"}}
    sim.script(op, action, provider="anthropic", key=claude.key)

    reply = call(claude, "msgbatch_x")

    assert (reply.status, reply.headers["retry-after"]) == (429, "3")
    assert reply.body["error"]["type"] == "rate_limit_error"


def test_a_patch_and_a_delay_bend_a_look(claude, sim, many):
    batch = claude.run(*many(1))
    elsewhere = "https://elsewhere.example/results"
    sim.script("messages.batches.get", {"kind": "patch", "body": {"results_url": elsewhere}})
    sim.script("messages.batches.get", {"kind": "delay", "seconds": 0.3})

    bent = claude.get(batch.id)
    started = time.monotonic()
    true = claude.get(batch.id)

    assert (bent.results_url, true.results_url) == (elsewhere, batch.results_url)
    assert time.monotonic() - started >= 0.3
