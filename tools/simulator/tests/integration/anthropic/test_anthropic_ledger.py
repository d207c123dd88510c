"""The ledger of Anthropic's half, and what survives a kill."""

import hashlib
import json

import anthropic
import pytest
from waiting import eventually_sync


def sent(params):
    """As the SDK sends it inside a create."""
    return json.dumps(params, separators=(",", ":"), ensure_ascii=False).encode()


def reconnect(simulator, claude, make_claude):
    simulator.kill()
    simulator.start()
    return make_claude(simulator, claude.key)


def test_calls_are_in_the_ledger_under_their_provider(claude, sim, many):
    batch = claude.run(*many(1))
    claude.raw("GET", "/messages/batches?limit=0")

    calls = [call for call in sim.call("GET", "/ledger")["calls"] if call["key"] == claude.key]

    assert {call["provider"] for call in calls} == {"anthropic"}
    assert [calls[0]["op"], calls[1]["op"]] == ["messages.batches.create", "messages.batches.get"]
    assert calls[1]["path"] == f"/anthropic/v1/messages/batches/{batch.id}"
    assert (calls[-1]["status"], calls[-1]["accepted"]) == (400, False)


def test_an_executed_request_is_recognised_by_the_bytes_of_its_parameters(claude, sim, params):
    bodies = [params("dieselbe Größe"), params(temperature=9)]
    first, second = claude.run(*bodies), claude.run(*bodies)

    rows = [{row["custom_id"]: row for row in sim.executed(batch.id)} for batch in (first, second)]

    sha = hashlib.sha256(sent(bodies[0])).hexdigest()
    assert [row["r-1"]["body_sha"] for row in rows] == [sha, sha]
    assert rows[0]["r-1"]["usage"]["output_tokens"] > 0
    assert (rows[0]["r-2"]["status_code"], rows[0]["r-2"]["usage"]) == (400, None)


def test_executions_cover_batches_and_single_messages(claude, sim, params):
    body = params("only here")
    batch = claude.run(body)
    claude.raw("POST", "/messages", sent(body))

    sha = hashlib.sha256(sent(body)).hexdigest()
    rows = map(json.loads, sim.read("GET", "/ledger/executions").splitlines())

    assert sorted((row["batch"] or "") for row in rows if row["body_sha"] == sha) == ["", batch.id]


def test_a_batch_in_the_ledger_shows_what_the_api_does_not(claude, sim, many):
    sim.configure(auto=False, cancel_seconds=None)
    batch_id = claude.create(*many(4))
    sim.advance(batch_id, "canceling", completed=3)

    (row,) = [row for row in sim.call("GET", "/ledger")["batches"] if row["id"] == batch_id]

    assert (row["provider"], row["key"], row["status"]) == ("anthropic", claude.key, "canceling")
    assert (row["lines"], row["executed"], row["completed"], row["failed"]) == (4, 3, 3, 0)
    assert row["created_at"] <= row["canceling_at"]
    assert row["ended_at"] is None


def test_killed_while_requests_run_none_is_doubled_or_lost(own_simulator, make_claude, many):
    own_simulator.configure(batch_seconds=1.5)
    claude = make_claude(own_simulator)
    batch_id = claude.create(*many(2000))
    eventually_sync(
        lambda: own_simulator.call("GET", "/ledger")["batches"][0]["executed"] > 300,
        timeout=20,
        what="300 requests that have run",
    )

    again = reconnect(own_simulator, claude, make_claude)
    again.wait(batch_id)

    wanted = sorted(f"r-{number}" for number in range(1, 2001))
    assert sorted(json.loads(line)["custom_id"] for line in again.lines(batch_id)) == wanted
    assert sorted(row["custom_id"] for row in own_simulator.executed(batch_id)) == wanted


def test_after_a_kill_every_batch_goes_on_from_where_it_was(own_simulator, make_claude, many):
    own_simulator.configure(auto=False, cancel_seconds=None)
    claude = make_claude(own_simulator)
    fresh, leaving, deleted = claude.create(*many(3)), claude.create(*many(3)), claude.create(*many(1))
    own_simulator.advance(leaving, "canceling", completed=1)
    own_simulator.advance(deleted, "ended")
    claude.client.messages.batches.delete(deleted)

    again = reconnect(own_simulator, claude, make_claude)
    own_simulator.configure(auto=True, cancel_seconds=0.05)

    assert again.wait(fresh).request_counts.succeeded == 3
    assert again.wait(leaving).request_counts.canceled == 2
    with pytest.raises(anthropic.NotFoundError):
        again.get(deleted)


def test_an_accepted_create_is_in_the_ledger_though_its_answer_was_lost(own_simulator, make_claude, params):
    claude = make_claude(own_simulator)
    own_simulator.script("messages.batches.create", {"kind": "drop", "when": "after"})
    with pytest.raises(anthropic.APIConnectionError):
        claude.create(params("[sim: status=500 times=1]"))
    (row,) = own_simulator.call("GET", "/ledger")["batches"]
    claude.wait(row["id"])

    again = reconnect(own_simulator, claude, make_claude)

    ledger = own_simulator.call("GET", "/ledger")
    assert (ledger["calls"][0]["accepted"], ledger["calls"][0]["status"]) == (True, None)
    assert [batch["id"] for batch in ledger["batches"]] == [
        batch.id for batch in again.client.messages.batches.list()
    ]
    assert again.run(params("[sim: status=500 times=1]")).request_counts.succeeded == 1
