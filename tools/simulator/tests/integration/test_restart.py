"""kill -9 and a restart on the same data directory lose nothing."""

import openai
import pytest
from waiting import eventually_sync


def reconnect(simulator, account, make_account):
    simulator.kill()
    simulator.start()
    return make_account(simulator, account.key)


def test_files_batches_clock_and_configuration_survive(own_simulator, make_account, requests):
    account = make_account(own_simulator)
    done = account.run(requests.many(20))
    whole = account.client.files.content(done.output_file_id).content
    own_simulator.configure(list_lag=5)
    own_simulator.call("POST", "/clock", {"advance": 1000})

    again = reconnect(own_simulator, account, make_account)

    assert again.client.batches.retrieve(done.id).to_dict() == done.to_dict()
    assert again.client.files.content(done.output_file_id).content == whole
    assert len(again.client.files.list().data) == 2
    assert own_simulator.call("GET", "/config")["list_lag"] == 5
    assert own_simulator.call("GET", "/clock")["offset"] == 1000


def test_a_batch_goes_on_where_it_was_killed(own_simulator, make_account, requests):
    account = make_account(own_simulator)
    undisturbed = account.raw_lines(account.run(requests.many(300)).output_file_id)
    own_simulator.configure(auto=False)
    batch_id = account.create(requests.many(300))
    own_simulator.advance(batch_id, "in_progress", completed=120)

    again = reconnect(own_simulator, account, make_account)
    assert again.client.batches.retrieve(batch_id).request_counts.completed == 120
    batch = own_simulator.advance(batch_id, "completed")

    lines = again.lines(batch["output_file_id"])
    assert sorted(line["custom_id"] for line in lines) == sorted(f"line-{n}" for n in range(1, 301))
    assert len(lines) == len(undisturbed)
    assert len(own_simulator.executed(batch_id)) == 300


def test_killed_while_lines_run_no_line_is_doubled_or_lost(own_simulator, make_account, requests):
    own_simulator.configure(batch_seconds=1.5)
    account = make_account(own_simulator)
    batch_id = account.create(requests.many(3000))
    eventually_sync(
        lambda: account.client.batches.retrieve(batch_id).request_counts.completed > 500,
        timeout=20,
        what="500 lines that have run",
    )

    again = reconnect(own_simulator, account, make_account)
    batch = again.wait(batch_id)

    ids = [line["custom_id"] for line in again.lines(batch.output_file_id)]
    assert sorted(ids) == sorted(f"line-{n}" for n in range(1, 3001))
    assert sorted(row["custom_id"] for row in own_simulator.executed(batch_id)) == sorted(ids)


def test_a_validating_and_a_cancelling_batch_go_on(own_simulator, make_account, requests):
    own_simulator.configure(auto=False, cancel_seconds=None)
    account = make_account(own_simulator)
    fresh, leaving = account.create(requests.many(5)), account.create(requests.many(5))
    account.client.batches.cancel(leaving)

    again = reconnect(own_simulator, account, make_account)
    own_simulator.configure(auto=True, cancel_seconds=0.05)

    assert again.wait(fresh).status == "completed"
    assert again.wait(leaving).status == "cancelled"


def test_an_accepted_create_is_in_the_ledger_though_its_answer_was_lost(
    own_simulator, make_account, requests
):
    account = make_account(own_simulator)
    file_id = account.upload(requests.many(2))
    own_simulator.script("batches.create", {"kind": "drop", "when": "after"})
    with pytest.raises(openai.APIConnectionError):
        account.client.batches.create(
            input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h"
        )

    reconnect(own_simulator, account, make_account)

    ledger = own_simulator.call("GET", "/ledger")
    call = next(call for call in ledger["calls"] if call["op"] == "batches.create")
    assert (call["accepted"], call["status"], call["fault"]) == (True, None, "drop:after")
    assert [batch["input_file_id"] for batch in ledger["batches"]] == [file_id]


def test_how_often_a_body_ran_survives(own_simulator, make_account, requests):
    account = make_account(own_simulator)
    content = requests.lines([requests.body("flaky", metadata={"sim": "status=500 times=1"})])
    assert account.run(content).request_counts.failed == 1

    again = reconnect(own_simulator, account, make_account)

    assert again.run(content).request_counts.completed == 1
