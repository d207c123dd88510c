"""The ledger: every call, every batch, every executed line."""

import hashlib
import json

import openai
import pytest


def test_calls_are_in_the_ledger_in_order_with_their_status(account, sim, requests):
    account.run(requests.many(1))
    with pytest.raises(openai.BadRequestError):
        account.client.batches.list(limit=0)

    calls = [call for call in sim.call("GET", "/ledger")["calls"] if call["key"] == account.key]

    assert [call["op"] for call in calls[:2]] == ["files.create", "batches.create"]
    assert all(call["accepted"] and call["status"] == 200 for call in calls[:-1])
    assert (calls[-1]["status"], calls[-1]["accepted"], calls[-1]["path"]) == (
        400,
        False,
        "/openai/v1/batches?limit=0",
    )
    assert [call["seq"] for call in calls] == sorted(call["seq"] for call in calls)
    assert sim.call("GET", f"/ledger?after={calls[-1]['seq']}")["calls"] == []


def test_an_executed_line_is_recognised_in_every_batch_that_carries_it(account, sim, requests):
    bodies = [requests.body("same"), requests.body("other", temperature=9)]
    first, second = account.run(requests.lines(bodies)), account.run(requests.lines(bodies))

    rows = {batch.id: {row["custom_id"]: row for row in sim.executed(batch.id)} for batch in (first, second)}

    sha = hashlib.sha256(json.dumps(bodies[0], separators=(",", ":")).encode()).hexdigest()
    assert {batch: row["line-1"]["body_sha"] for batch, row in rows.items()} == dict.fromkeys(rows, sha)
    assert rows[first.id]["line-1"]["usage"]["total_tokens"] == first.usage.total_tokens
    assert (rows[first.id]["line-2"]["status_code"], rows[first.id]["line-2"]["usage"]) == (400, None)


def test_executions_cover_all_batches_and_chat(account, sim, requests):
    batch = account.run(requests.many(3))
    account.client.chat.completions.create(**requests.body("direct"))

    rows = [json.loads(line) for line in sim.read("GET", "/ledger/executions").splitlines()]

    assert sum(row["batch"] == batch.id for row in rows) == 3
    assert any(row["batch"] is None and row["status_code"] == 200 for row in rows)


def test_a_batch_in_the_ledger_shows_its_lines_metadata_and_times(account, sim, requests):
    batch_id = account.create(requests.many(4), metadata={"attempt": "7"})
    account.client.batches.cancel(batch_id)
    account.wait(batch_id, "cancelled")

    (row,) = [row for row in sim.call("GET", "/ledger")["batches"] if row["id"] == batch_id]

    assert (row["key"], row["status"], row["lines"], row["metadata"]) == (
        account.key,
        "cancelled",
        4,
        {"attempt": "7"},
    )
    assert row["cancelling_at"] <= row["cancelled_at"]
