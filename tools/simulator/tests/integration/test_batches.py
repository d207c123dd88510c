"""The life of a batch, seen through the SDK."""

import openai
import pytest
from waiting import eventually_sync


def test_a_batch_completes_with_every_line_answered_once(account, requests):
    batch = account.run(requests.many(50))

    lines = account.lines(batch.output_file_id)

    assert sorted(line["custom_id"] for line in lines) == sorted(f"line-{n}" for n in range(1, 51))
    assert all(line["response"]["status_code"] == 200 and line["error"] is None for line in lines)
    assert len({line["id"] for line in lines}) == 50
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (
        50,
        50,
        0,
    )
    assert batch.error_file_id is None
    assert batch.errors is None
    assert batch.model == "gpt-4o-mini-2024-07-18"


def test_output_is_shuffled_and_the_seed_decides_how(account, sim, requests):
    shuffled = account.run(requests.many(30))
    sim.configure(order="input")
    ordered = account.run(requests.many(30))

    order = [line["custom_id"] for line in account.lines(ordered.output_file_id)]
    assert order == [f"line-{n}" for n in range(1, 31)]
    assert [line["custom_id"] for line in account.lines(shuffled.output_file_id)] != order


def test_usage_of_the_batch_is_the_sum_over_its_lines(account, requests):
    batch = account.run(requests.many(20))

    usages = [line["response"]["body"]["usage"] for line in account.lines(batch.output_file_id)]

    assert batch.usage.input_tokens == sum(usage["prompt_tokens"] for usage in usages) > 0
    assert batch.usage.output_tokens == sum(usage["completion_tokens"] for usage in usages) > 0
    assert batch.usage.total_tokens == batch.usage.input_tokens + batch.usage.output_tokens


def test_creation_answers_with_every_field(account, sim, requests):
    sim.configure(auto=False)
    batch_id = account.create(requests.many(1), metadata={"a": "b"})

    wire = account.client.batches.retrieve(batch_id).to_dict()

    assert wire["status"] == "validating"
    assert wire["metadata"] == {"a": "b"}
    assert wire["expires_at"] == wire["created_at"] + 86400
    assert wire["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    empty = {"errors", "output_file_id", "error_file_id", "usage", "model"}
    times = {"in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at"}
    assert all(wire[name] is None for name in empty | times | {"cancelled_at"})


def test_a_batch_moves_only_as_told_while_auto_is_off(account, sim, requests):
    sim.configure(auto=False)
    batch_id = account.create(requests.many(10))

    running = sim.advance(batch_id, "in_progress", completed=4)
    finalizing = sim.advance(batch_id, "finalizing")
    done = sim.advance(batch_id, "completed")

    assert (running["status"], running["request_counts"]["completed"]) == ("in_progress", 4)
    assert running["output_file_id"] is None
    assert (finalizing["status"], finalizing["request_counts"]["completed"]) == ("finalizing", 10)
    assert done["status"] == "completed"
    assert len(account.lines(done["output_file_id"])) == 10
    assert all(done[f"{state}_at"] for state in ("in_progress", "finalizing", "completed"))


def test_counts_move_while_a_batch_runs(account, sim, requests):
    sim.configure(batch_seconds=2.0)
    batch_id = account.create(requests.many(40))

    counts = eventually_sync(
        lambda: (
            (found := account.client.batches.retrieve(batch_id).request_counts)
            and 0 < found.completed < found.total
            and found
        ),
        timeout=20,
        what="counts on their way",
    )

    assert counts.total == 40
    assert account.wait(batch_id).status == "completed"


def test_failing_lines_go_to_the_error_file_with_their_response(account, requests):
    bodies = [requests.body("fine"), requests.body("bad", temperature=3), requests.body("fine too")]

    batch = account.run(requests.lines(bodies))

    (failed,) = account.lines(batch.error_file_id)
    assert failed["custom_id"] == "line-2"
    assert failed["error"] is None
    assert failed["response"]["status_code"] == 400
    assert failed["response"]["body"]["error"]["param"] == "temperature"
    assert len(account.lines(batch.output_file_id)) == 2
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 2, 1)


def test_a_batch_in_which_all_fails_is_completed_without_an_output_file(account, requests):
    batch = account.run(requests.many(3, temperature=-1))

    assert (batch.status, batch.output_file_id, batch.request_counts.failed) == ("completed", None, 3)
    assert len(account.lines(batch.error_file_id)) == 3


def test_cancelling_early_leaves_every_line_cancelled(account, sim, requests):
    sim.configure(auto=False)
    batch_id = account.create(requests.many(5))

    assert account.client.batches.cancel(batch_id).status == "cancelling"
    batch = account.wait(batch_id)

    assert (batch.status, batch.output_file_id) == ("cancelled", None)
    lines = account.lines(batch.error_file_id)
    assert {line["error"]["code"] for line in lines} == {"batch_cancelled"}
    assert sorted(line["custom_id"] for line in lines) == [f"line-{n}" for n in range(1, 6)]
    assert sim.executed(batch_id) == []


@pytest.mark.parametrize(("state", "code"), [("cancelled", "batch_cancelled"), ("expired", "batch_expired")])
def test_an_early_end_keeps_what_was_executed(account, sim, requests, state, code):
    sim.configure(auto=False)
    batch_id = account.create(requests.many(10))
    sim.advance(batch_id, "in_progress", completed=4)

    batch = sim.advance(batch_id, state)

    done, rest = account.lines(batch["output_file_id"]), account.lines(batch["error_file_id"])
    assert (len(done), len(rest)) == (4, 6)
    assert len({line["custom_id"] for line in done + rest}) == 10
    assert all(line["response"] is None and line["error"]["code"] == code for line in rest)
    assert batch["request_counts"] == {"total": 10, "completed": 4, "failed": 6}
    assert len(sim.executed(batch_id)) == 4


def test_cancel_is_idempotent_and_refused_once_it_has_ended_otherwise(account, sim, requests):
    sim.configure(auto=False, cancel_seconds=None)
    batch_id = account.create(requests.many(2))
    account.client.batches.cancel(batch_id)

    assert account.client.batches.cancel(batch_id).status == "cancelling"
    sim.advance(batch_id, "cancelled")
    assert account.client.batches.cancel(batch_id).status == "cancelled"

    completed = account.create(requests.many(2))
    sim.advance(completed, "completed")
    with pytest.raises(openai.ConflictError) as refused:
        account.client.batches.cancel(completed)
    assert refused.value.body["message"] == "Cannot cancel a batch with status 'completed'."
    assert refused.value.response.headers["x-should-retry"] == "false"


def test_cancel_wins_over_a_validation_that_is_still_running(account, sim, requests):
    sim.configure(cancel_seconds=None)
    batch_id = account.create(requests.many(200))
    account.client.batches.cancel(batch_id)

    sim.call("POST", "/clock", {"advance": 10})

    assert account.client.batches.retrieve(batch_id).status == "cancelling"


def test_list_is_newest_first_pages_and_keeps_to_its_key(account, sim, make_account, requests):
    ids = [account.create(requests.many(1)) for _ in range(5)]
    make_account(sim).create(requests.many(1))

    assert [batch.id for batch in account.client.batches.list(limit=2)] == ids[::-1]
    page = account.client.batches.list(limit=5)
    assert page.has_more is False
    assert [batch.id for batch in page.data] == ids[::-1]


@pytest.mark.parametrize(
    ("limit", "code"),
    [("0", "integer_below_min_value"), ("101", "integer_above_max_value"), ("many", "invalid_type")],
)
def test_a_limit_out_of_range_is_refused(account, limit, code):
    with pytest.raises(openai.BadRequestError) as refused:
        account.client.batches.list(extra_query={"limit": limit})

    assert (refused.value.param, refused.value.code) == ("limit", code)


def test_an_unknown_batch_and_a_foreign_one_are_the_same_404(account, sim, make_account, requests):
    batch_id = account.create(requests.many(1))
    stranger = make_account(sim)

    for call in (stranger.client.batches.retrieve, stranger.client.batches.cancel):
        with pytest.raises(openai.NotFoundError) as refused:
            call(batch_id)
        assert refused.value.body["message"] == f"No batch found with id '{batch_id}'."


def test_deleting_the_input_does_not_disturb_a_batch(account, sim, requests):
    sim.configure(auto=False)
    file_id = account.upload(requests.many(3))
    batch = account.client.batches.create(
        input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h"
    )

    account.client.files.delete(file_id)

    assert sim.advance(batch.id, "completed")["request_counts"]["completed"] == 3


def test_output_files_live_as_long_as_asked(account, requests):
    batch_id = account.create(
        requests.many(1), output_expires_after={"anchor": "created_at", "seconds": 7200}
    )

    file = account.client.files.retrieve(account.wait(batch_id).output_file_id)

    assert (file.purpose, file.expires_at - file.created_at) == ("batch_output", 7200)


@pytest.mark.parametrize("body_of", ["embeddings", "completions", "responses", "moderations"])
def test_the_other_endpoints_answer(account, requests, body_of):
    bodies = {
        "embeddings": {"model": "text-embedding-3-small", "input": ["a", "b"], "dimensions": 8},
        "completions": {"model": "gpt-3.5-turbo-instruct", "prompt": "Say hello"},
        "responses": {"model": "gpt-5-mini", "input": "Say hello"},
        "moderations": {"model": "omni-moderation-latest", "input": "hello"},
    }
    endpoint = f"/v1/{body_of}"

    batch = account.run(requests.lines([bodies[body_of]], endpoint), endpoint)

    (line,) = account.lines(batch.output_file_id)
    assert line["response"]["status_code"] == 200
