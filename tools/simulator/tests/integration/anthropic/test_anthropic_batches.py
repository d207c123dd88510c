"""Message batches from their creation to their end, as the SDK sees them."""

import re
from datetime import timedelta

import anthropic
import pytest

DAY = 86400


def test_nothing_is_counted_and_there_are_no_results_before_the_whole_batch_has_ended(claude, sim, many):
    sim.configure(auto=False)
    batch_id = claude.create(*many(4))

    sim.advance(batch_id, "in_progress", completed=3)
    running = claude.get(batch_id)

    assert (running.processing_status, claude.counts(batch_id)) == ("in_progress", {"processing": 4})
    assert (running.ended_at, running.results_url) == (None, None)
    assert claude.raw("GET", f"/messages/batches/{batch_id}/results").status == 404
    sim.advance(batch_id, "ended")
    assert claude.counts(batch_id) == {"succeeded": 4}


def test_an_ended_batch_says_when_and_where(claude, sim, many):
    batch = claude.run(*many(2))
    wire = claude.raw("GET", f"/messages/batches/{batch.id}").body

    assert re.fullmatch(r"msgbatch_\w+", batch.id)
    assert batch.expires_at - batch.created_at == timedelta(days=1)
    assert batch.created_at < batch.ended_at < batch.expires_at
    assert (batch.archived_at, batch.cancel_initiated_at) == (None, None)
    assert batch.results_url == f"{sim.anthropic_base_url}/v1/messages/batches/{batch.id}/results"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", wire["created_at"])


def test_results_are_shuffled_unless_told_otherwise(claude, sim, many):
    ids = [f"r-{number}" for number in range(1, 41)]

    shuffled = list(claude.results(claude.run(*many(40)).id))
    sim.configure(order="input")
    ordered = list(claude.results(claude.run(*many(40)).id))

    assert shuffled != ids
    assert sorted(shuffled) == sorted(ids)
    assert ordered == ids


def test_bad_parameters_end_as_an_errored_result_and_spoil_nothing_else(claude, params):
    batch = claude.run(params(), params(n=2), params(model="claude-2"))

    results = claude.results(batch.id)
    refused, unknown = results["r-2"].error, results["r-3"].error
    assert results["r-1"].type == "succeeded"
    assert (refused.type, refused.error.type) == ("error", "invalid_request_error")
    assert refused.error.message == "n: Extra inputs are not permitted"
    assert refused.request_id.startswith("req_")
    assert (unknown.error.type, unknown.error.message) == ("not_found_error", "model: claude-2")
    assert claude.counts(batch.id) == {"succeeded": 1, "errored": 2}


def test_a_cancel_keeps_what_was_executed(claude, sim, many):
    sim.configure(auto=False)
    batch_id = claude.create(*many(5))
    sim.advance(batch_id, "in_progress", completed=2)

    canceling = claude.client.messages.batches.cancel(batch_id)
    again = claude.client.messages.batches.cancel(batch_id)
    ended = claude.wait(batch_id)

    assert (canceling.processing_status, canceling.request_counts.processing) == ("canceling", 5)
    assert again.cancel_initiated_at == canceling.cancel_initiated_at == ended.cancel_initiated_at
    assert claude.counts(batch_id) == {"succeeded": 2, "canceled": 3}
    assert (
        sorted(result.type for result in claude.results(batch_id).values())
        == ["canceled"] * 3 + ["succeeded"] * 2
    )


@pytest.mark.parametrize(
    ("flying", "counts"), [(3, {"succeeded": 3, "canceled": 2}), (None, {"succeeded": 5})]
)
def test_what_is_in_flight_at_a_cancel_may_finish(claude, sim, many, flying, counts):
    sim.configure(auto=False, cancel_in_flight=flying)
    batch_id = claude.create(*many(5))

    claude.client.messages.batches.cancel(batch_id)
    ended = claude.wait(batch_id)

    assert claude.counts(batch_id) == counts
    assert ended.cancel_initiated_at is not None


def test_an_ended_batch_cannot_be_canceled(claude, many):
    batch = claude.run(*many(1))

    with pytest.raises(anthropic.BadRequestError, match="has already ended"):
        claude.client.messages.batches.cancel(batch.id)


def test_after_the_window_the_rest_is_expired(claude, sim, many):
    sim.configure(auto=False, window_seconds=500)
    batch_id = claude.create(*many(3))
    sim.advance(batch_id, "in_progress", completed=1)

    sim.call("POST", "/clock", {"advance": 501})

    assert claude.wait(batch_id).cancel_initiated_at is None
    assert claude.counts(batch_id) == {"succeeded": 1, "expired": 2}
    assert {result.type for result in claude.results(batch_id).values()} == {"succeeded", "expired"}


def test_after_29_days_a_batch_is_archived_and_its_results_are_gone(claude, sim, many):
    batch = claude.run(*many(1))

    sim.call("POST", "/clock", {"advance": 29 * DAY - 60})
    kept = claude.get(batch.id)
    sim.call("POST", "/clock", {"advance": 120})
    archived = claude.get(batch.id)

    assert (kept.archived_at, bool(kept.results_url)) == (None, True)
    assert archived.archived_at - archived.created_at == timedelta(days=29)
    assert archived.results_url is None
    assert claude.raw("GET", f"/messages/batches/{batch.id}/results").status == 404


def test_only_an_ended_batch_can_be_deleted(claude, sim, many):
    sim.configure(auto=False)
    batch_id = claude.create(*many(1))
    with pytest.raises(anthropic.BadRequestError, match="Cancel it first"):
        claude.client.messages.batches.delete(batch_id)
    sim.advance(batch_id, "ended")

    deleted = claude.client.messages.batches.delete(batch_id)

    assert (deleted.id, deleted.type) == (batch_id, "message_batch_deleted")
    assert list(claude.client.messages.batches.list()) == []
    for gone in (claude.get, claude.client.messages.batches.delete, claude.client.messages.batches.cancel):
        with pytest.raises(anthropic.NotFoundError):
            gone(batch_id)


def test_batches_of_another_key_do_not_exist(claude, sim, make_claude, many):
    batch_id, other = claude.create(*many(1)), make_claude(sim)

    assert list(other.client.messages.batches.list()) == []
    with pytest.raises(anthropic.NotFoundError):
        other.get(batch_id)


def test_lists_are_newest_first_and_paged_both_ways(claude, many):
    ids = [claude.create(*many(1)) for _ in range(5)][::-1]
    pages = claude.client.messages.batches

    first = pages.list(limit=2)
    after = pages.list(limit=2, after_id=ids[1])
    before = pages.list(limit=2, before_id=ids[4])

    assert ([batch.id for batch in first.data], first.has_more) == (ids[:2], True)
    assert (first.first_id, first.last_id) == (ids[0], ids[1])
    assert ([batch.id for batch in after.data], after.has_more) == (ids[2:4], True)
    assert ([batch.id for batch in before.data], before.has_more) == (ids[2:4], True)
    assert pages.list(before_id=ids[2]).has_more is False
    assert [batch.id for batch in pages.list(limit=2)] == ids


def test_a_young_batch_may_be_missing_from_lists(claude, sim, many):
    sim.configure(list_lag=30)
    batch_id = claude.create(*many(1))

    assert list(claude.client.messages.batches.list()) == []
    sim.call("POST", "/clock", {"advance": 31})

    assert [batch.id for batch in claude.client.messages.batches.list()] == [batch_id]


@pytest.mark.parametrize(
    ("to", "more", "status", "counts"),
    [
        ("finalizing", {}, "in_progress", {"processing": 4}),
        ("completed", {}, "ended", {"succeeded": 4}),
        ("ended", {"completed": 3}, "ended", {"succeeded": 3, "expired": 1}),
        ("canceling", {"completed": 1}, "canceling", {"processing": 4}),
        ("cancelled", {"completed": 1}, "ended", {"succeeded": 1, "canceled": 3}),
        ("expired", {"completed": 1}, "ended", {"succeeded": 1, "expired": 3}),
    ],
)
def test_a_test_takes_a_batch_wherever_it_wants(claude, sim, many, to, more, status, counts):
    sim.configure(auto=False, cancel_seconds=None)
    batch_id = claude.create(*many(4))

    wire = sim.advance(batch_id, to, **more)

    assert wire["processing_status"] == claude.get(batch_id).processing_status == status
    assert claude.counts(batch_id) == counts


def test_a_batch_that_would_pass_the_queue_limit_is_refused(claude, sim, many):
    sim.configure(auto=False, queued_request_limit=5)
    claude.create(*many(3))

    with pytest.raises(anthropic.RateLimitError) as refused:
        claude.create(*many(3))

    assert refused.value.response.headers["retry-after"] == "60"
    assert claude.counts(claude.create(*many(2))) == {"processing": 2}
