"""One clock, moved by the test, and what lags behind it."""


def test_advancing_the_clock_expires_a_batch(account, sim, requests):
    sim.configure(auto=False)
    batch_id = account.create(requests.many(4))
    sim.advance(batch_id, "in_progress", completed=1)

    sim.call("POST", "/clock", {"advance": 86401})

    batch = account.wait(batch_id)
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("expired", 1, 3)
    assert batch.expired_at >= batch.expires_at


def test_advancing_the_clock_completes_a_long_batch(account, sim, requests):
    sim.configure(batch_seconds=3600)
    batch_id = account.create(requests.many(4))

    sim.call("POST", "/clock", {"advance": 1800})
    half = account.wait(batch_id, "in_progress")
    sim.call("POST", "/clock", {"advance": 1900})

    assert half.request_counts.total == 4
    assert account.wait(batch_id).status == "completed"


def test_a_jump_over_the_window_completes_what_would_have_completed(account, sim, requests):
    sim.configure(batch_seconds=3600)
    batch_id = account.create(requests.many(4))

    sim.call("POST", "/clock", {"advance": 90000})

    assert account.wait(batch_id).status == "completed"


def test_new_objects_carry_the_moved_time(account, sim, requests):
    before = sim.call("GET", "/clock")["now"]
    sim.call("POST", "/clock", {"advance": 5000})

    file = account.client.files.retrieve(account.upload(requests.many(1)))

    assert file.created_at >= int(before + 5000)


def test_lists_lag_and_single_objects_do_not(account, sim, requests):
    sim.configure(list_lag=60, file_list_lag=60)
    batch_id = account.create(requests.many(1))

    assert account.client.batches.list().data == []
    assert account.client.files.list().data == []
    assert account.client.batches.retrieve(batch_id).id == batch_id
    sim.call("POST", "/clock", {"advance": 61})
    assert [batch.id for batch in account.client.batches.list()] == [batch_id]


def test_counts_lag_behind_the_state(account, sim, requests):
    sim.configure(count_lag=60)
    batch = account.run(requests.many(3))

    assert (batch.status, batch.request_counts.completed) == ("completed", 0)
    assert batch.request_counts.total == 3
    sim.call("POST", "/clock", {"advance": 61})
    assert account.client.batches.retrieve(batch.id).request_counts.completed == 3


def test_a_pinned_batch_waits_until_auto_is_switched_on_again(account, sim, requests):
    sim.configure(batch_seconds=3600)
    batch_id = account.create(requests.many(4))
    sim.advance(batch_id, "in_progress", completed=2)
    sim.call("POST", "/clock", {"advance": 7200})

    assert account.client.batches.retrieve(batch_id).request_counts.completed == 2
    sim.configure(auto=False)
    sim.configure(auto=True)
    assert account.wait(batch_id).request_counts.completed == 4
