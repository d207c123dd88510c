"""A shard becomes exactly one provider batch, or waits, or is refused."""

import hashlib
import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import REGISTRY
from waiting import eventually

from floopy_common.domain.shard import AttemptPhase, WaitReason


async def test_planned_shards_are_submitted_once_each(world, running, make_lines, quiet) -> None:
    batch_id = await world.plan(make_lines(25), await world.account(), shard_lines=10)

    async with running():
        shards = await world.in_state(batch_id, "submitted")
        await world.summary(batch_id, {"submitted": 3})

    await world.assert_one_kept_for_each(batch_id)
    assert [shard["attempts"][-1]["phase"] for shard in shards] == [AttemptPhase.CREATED] * 3
    assert all(shard["poll"]["next_at"] is not None and shard["lease"]["token"] is None for shard in shards)
    events = [json.loads(entry["value"]) for shard in shards for entry in shard["outbox"]]
    assert sorted(event["data"]["shard_id"] for event in events) == [shard["_id"] for shard in shards]


async def test_the_provider_gets_every_body_byte_for_byte(world, running, make_lines) -> None:
    lines = make_lines(25)
    batch_id = await world.plan(lines, await world.account(), shard_lines=10)

    async with running():
        await world.in_state(batch_id, "submitted")
        executed = await eventually(lambda: world.executed(25), what="every line executed")

    nonces = [shard["attempts"][-1]["nonce"] for shard in await world.shards(batch_id)]
    expected = {
        f"{nonces[(number - 1) // 10]}-{number}": hashlib.sha256(_body(line)).hexdigest()
        for number, line in enumerate(lines, start=1)
    }
    assert {row["custom_id"]: row["body_sha"] for row in executed} == expected


def _body(line: bytes) -> bytes:
    return line[line.index(b'"body": ') + len(b'"body": ') : -1]


async def test_a_retry_shards_scattered_lines_are_measured_before_the_upload(
    world, running, make_lines
) -> None:
    batch_id = await world.plan(make_lines(25), await world.account())
    shard = await world.shard(batch_id)
    await world.update("shards", shard["_id"], kind="retry", ranges=[[2, 4], [20, 20]], lines=4, bytes=1)

    async with running():
        await world.in_state(batch_id, "submitted")
        executed = await eventually(lambda: world.executed(4), what="the lines executed")

    assert sorted(int(row["custom_id"].split("-")[1]) for row in executed) == [2, 3, 4, 20]


async def test_a_rate_limit_is_waited_out_with_the_same_upload(
    world, running, make_lines, quiet, simulator
) -> None:
    await simulator.fault(
        "batches.create", {"kind": "status", "status": 429, "headers": {"Retry-After": "1"}}
    )
    batch_id = await world.plan(make_lines(2), await world.account())

    async with running():
        (waiting,) = await world.in_state(batch_id, "waiting")
        await world.in_state(batch_id, "submitted")

    assert waiting["waiting"]["reason"] == WaitReason.RATE_LIMITED
    first, second = await simulator.calls("batches.create")
    assert second["at"] - first["at"] >= 1
    assert len(await simulator.calls("files.create")) == 1
    await world.assert_one_kept_for_each(batch_id)


async def test_waits_double_up_to_their_bound(world, running, make_lines, quiet, simulator) -> None:
    await simulator.fault("batches.create", {"kind": "status", "status": 429}, times=4)
    batch_id = await world.plan(make_lines(1), await world.account())

    async with running(FLOOPY_WAITING__MAX="0.8"):
        await world.in_state(batch_id, "submitted")

    at = [call["at"] for call in await simulator.calls("batches.create")]
    gaps = [later - earlier for earlier, later in itertools.pairwise(at)]
    assert [gap >= least for gap, least in zip(gaps, (0.2, 0.4, 0.8, 0.8), strict=True)] == [True] * 4
    assert gaps[3] < 1.6


async def test_a_retry_after_without_end_is_capped(world, running, make_lines, quiet, simulator) -> None:
    action = {"kind": "status", "status": 429, "headers": {"Retry-After": "86400"}}
    await simulator.fault("batches.create", action)
    batch_id = await world.plan(make_lines(1), await world.account())

    async with running():
        await world.in_state(batch_id, "submitted", within=10)


@pytest.mark.surface("4.4 token_limit_exceeded: it waits, and nothing fails")
async def test_a_full_queue_shows_as_such(world, running, make_lines, simulator) -> None:
    body = {"error": {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}}
    await simulator.fault("batches.create", {"kind": "status", "status": 400, "body": body}, times=None)
    batch_id = await world.plan(make_lines(1), await world.account())

    async with running():
        (waiting,) = await world.in_state(batch_id, "waiting")
        queue = await world.queue(batch_id)

    assert waiting["waiting"]["reason"] == queue["reason"] == WaitReason.QUEUE_FULL
    assert queue["position"] == 1


@pytest.mark.surface("4.4 token_limit_exceeded: where it is not to wait, it fails")
async def test_a_full_queue_fails_where_nothing_is_to_wait(world, running, make_lines, simulator) -> None:
    body = {"error": {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}}
    await simulator.fault("batches.create", {"kind": "status", "status": 429, "body": body}, times=None)
    batch_id = await world.plan(make_lines(1), await world.account())

    async with running(FLOOPY_WAITING__QUEUE_FULL="fail"):
        (refused,) = await world.in_state(batch_id, "refused")

    (error,) = refused["refused"]["errors"]
    assert (error["code"], error["line"]) == ("token_limit_exceeded", None)
    assert error["message"].startswith("Enqueued token limit reached")
    assert len(await simulator.calls("batches.create")) == 1


async def test_a_limited_account_does_not_delay_another(world, running, make_lines, quiet, simulator) -> None:
    limited, other = await world.account("sk-limited"), await world.account("sk-other")
    action = {"kind": "status", "status": 429}
    await simulator.fault("batches.create", action, times=None, key="sk-limited")
    held = await world.plan(make_lines(20), limited, shard_lines=1)
    free = await world.plan(make_lines(3), other, shard_lines=1)

    async with running(FLOOPY_SUBMIT__CONCURRENCY="2"):
        await world.in_state(free, "submitted", within=10)

    assert all(shard["state"] != "submitted" for shard in await world.shards(held))


async def test_a_rate_limit_spares_the_provider_the_accounts_other_shards(
    world, running, make_lines, quiet, simulator
) -> None:
    await simulator.fault("batches.create", {"kind": "status", "status": 429}, times=None, key="sk-limited")
    await world.plan(make_lines(5), await world.account("sk-limited"), shard_lines=1)
    younger = await world.plan(make_lines(1), await world.account())
    await world.update("shards", (await world.shard(younger))["_id"], created_at=datetime.now(UTC))

    async with running(FLOOPY_SUBMIT__CONCURRENCY="1", FLOOPY_WAITING__MIN="60", FLOOPY_WAITING__MAX="60"):
        await world.in_state(younger, "submitted")

    refused, accepted = await simulator.calls("batches.create")
    assert (refused["status"], accepted["status"]) == (429, 200)


async def test_a_slow_account_leaves_a_slot_to_others(world, running, make_lines, quiet, simulator) -> None:
    slow, quick = await world.account("sk-slow"), await world.account("sk-quick")
    fault = await simulator.fault("files.create", {"kind": "hold"}, times=None, key="sk-slow")
    await world.plan(make_lines(8), slow, shard_lines=1)
    batch_id = await world.plan(make_lines(3), quick, shard_lines=1)

    async with running(FLOOPY_SUBMIT__CONCURRENCY="2"):
        await world.in_state(batch_id, "submitted", within=10)
        await simulator.release(fault)


@pytest.mark.parametrize("op", ["files.create", "batches.create"])
async def test_a_refusal_is_final_and_in_the_providers_words(
    world, running, make_lines, simulator, op: str
) -> None:
    error = {"error": {"code": "model_not_found", "message": "There is no such model."}}
    await simulator.fault(op, {"kind": "status", "status": 400, "body": error}, times=None)
    batch_id = await world.plan(make_lines(1), await world.account())

    async with running():
        (shard,) = await world.in_state(batch_id, "refused")

    assert shard["ended"] == "refused"
    assert shard["refused"] == {
        "code": "model_not_found",
        "message": "There is no such model.",
        "errors": [
            {"code": "model_not_found", "line": None, "message": "There is no such model.", "param": None}
        ],
    }
    assert len(await simulator.calls(op)) == 1


async def test_an_input_too_large_for_the_provider_goes_on_in_parts(
    world, running, make_lines, simulator
) -> None:
    await simulator.configure(max_file_bytes=700)
    batch_id = await world.plan(make_lines(20), await world.account(), shard_lines=10)

    async with running():
        await eventually(lambda: world.executed(20), what="every line executed")
        shards = await world.in_state(batch_id, "submitted")

    await simulator.assert_nothing_twice()
    assert sorted(row["custom_id"].partition("-")[2] for row in await simulator.executions()) == sorted(
        str(number) for number in range(1, 21)
    )
    assert len(shards) > 4
    assert sum(shard["lines"] for shard in shards) == 20
    assert all(shard["kind"] == "primary" and shard["bytes"] <= 700 for shard in shards)


async def test_a_single_line_too_large_for_the_provider_is_refused(
    world, running, make_lines, simulator
) -> None:
    await simulator.configure(max_file_bytes=100)
    batch_id = await world.plan(make_lines(3), await world.account())

    async with running():
        shards = await world.in_state(batch_id, "refused")

    assert sorted(shard["ranges"] for shard in shards) == [[[1, 1]], [[2, 2]], [[3, 3]]]
    assert {shard["refused"]["code"] for shard in shards} == {"request_too_large"}


async def test_a_revoked_key_refuses_one_account_only(world, running, make_lines, quiet, simulator) -> None:
    await simulator.configure(revoked_keys=["sk-revoked"])
    revoked = await world.plan(make_lines(1), await world.account("sk-revoked"))
    valid = await world.plan(make_lines(1), await world.account())

    async with running():
        (refused,) = await world.in_state(revoked, "refused")
        await world.in_state(valid, "submitted")

    assert "sk-revoked" not in json.dumps(refused["refused"])


async def test_a_shard_without_a_usable_account_waits_where_everybody_sees_it(
    world, running, make_lines, quiet
) -> None:
    batch_id = await world.plan(make_lines(1), "acct_of_nobody")

    async with running():
        queue = await world.queue(batch_id)

        async def backs_off() -> bool:
            waiting = (await world.shard(batch_id))["waiting"]
            return bool(waiting["backoff"] > 0.2)

        await eventually(backs_off, what="a longer wait")

    assert queue["reason"] == "provider_unavailable"
    assert queue["next_attempt_at"] is not None
    assert len((await world.shard(batch_id))["attempts"]) == 1


async def test_a_failed_upload_is_repeated(world, running, make_lines, quiet, simulator) -> None:
    await simulator.fault("files.create", {"kind": "drop", "when": "after"})
    await simulator.fault("files.create", {"kind": "status", "status": 500})
    batch_id = await world.plan(make_lines(3), await world.account())

    async with running():
        await world.in_state(batch_id, "submitted")

    assert len((await world.shard(batch_id))["attempts"]) == 1
    await world.assert_one_kept_for_each(batch_id)


async def test_an_input_that_did_not_outlive_the_wait_is_uploaded_anew(
    world, running, make_lines, quiet, simulator
) -> None:
    await simulator.fault("batches.create", {"kind": "status", "status": 429})
    await simulator.fault("batches.create", {"kind": "status", "status": 404})
    batch_id = await world.plan(make_lines(1), await world.account())

    async with running():
        await world.in_state(batch_id, "submitted")

    phases = [attempt["phase"] for attempt in (await world.shard(batch_id))["attempts"]]
    assert phases == [AttemptPhase.NOT_ACCEPTED, AttemptPhase.CREATED]
    assert len(await simulator.calls("files.create")) == 2


async def test_a_stopped_process_leaves_a_create_in_mid_call_to_be_looked_for_at_once(
    world, running, make_lines, quiet, simulator
) -> None:
    fault = await simulator.fault("batches.create", {"kind": "hold", "when": "after"})
    batch_id = await world.plan(make_lines(1), await world.account())

    async with running(FLOOPY_SUBMIT__CREATE_TIMEOUT="20", FLOOPY_SUBMIT__SETTLE_WINDOW="30"):
        await eventually(lambda: world.holding(fault), what="a create under way")
    stopped = await world.shard(batch_id)
    async with running(FLOOPY_SUBMIT__CREATE_TIMEOUT="20", FLOOPY_SUBMIT__SETTLE_WINDOW="30"):
        await world.in_state(batch_id, "submitted", within=5)

    assert (stopped["state"], stopped["lease"]["token"]) == ("submit_unknown", None)
    await world.assert_one_kept_for_each(batch_id)


async def test_the_lease_outlives_the_create_call(world, running, make_lines, quiet, simulator) -> None:
    fault = await simulator.fault("batches.create", {"kind": "hold", "when": "after"})
    batch_id = await world.plan(make_lines(1), await world.account())

    async with running(FLOOPY_SUBMIT__CREATE_TIMEOUT="20", FLOOPY_SUBMIT__SETTLE_WINDOW="30"):
        await eventually(lambda: world.holding(fault), what="a create under way")
        shard = await world.shard(batch_id)
        await simulator.release(fault)
        await world.in_state(batch_id, "submitted")

    creating_at = shard["attempts"][-1]["creating_at"]
    assert shard["lease"]["expires_at"] >= creating_at + timedelta(seconds=20)


async def test_an_input_that_is_not_as_long_as_planned_is_not_sent(
    world, running, make_lines, simulator
) -> None:
    batch_id = await world.plan(make_lines(3), await world.account())
    await world.update("shards", (await world.shard(batch_id))["_id"], bytes=5)

    async with running():
        (shard,) = await world.in_state(batch_id, "waiting")

    assert shard["waiting"]["reason"] == WaitReason.UNAVAILABLE
    assert await simulator.calls("batches.create") == []


async def test_metrics_count_moves_durations_and_waiting_shards(
    world, running, make_lines, quiet, simulator
) -> None:
    def read(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    moved, adopted = read("floopy_shard_moves_total", to="submitted"), _adopted(read)
    await simulator.fault("batches.create", {"kind": "drop", "when": "after"})
    lost = await world.plan(make_lines(1), await world.account())
    async with running():
        await world.in_state(lost, "submitted")
    await simulator.fault("batches.create", {"kind": "status", "status": 429}, times=None)
    waiting = await world.plan(make_lines(1), await world.account())
    async with running(FLOOPY_WAITING__MIN="60", FLOOPY_WAITING__MAX="60"):
        await world.in_state(waiting, "waiting")
    async with running("submitting"):

        async def shown() -> bool:
            return read("floopy_shards_waiting", reason="rate_limited") == 1

        await eventually(shown, what="the gauge")

    assert read("floopy_shard_moves_total", to="submitted") == moved + 1
    assert _adopted(read) == adopted + 1


def _adopted(read: Callable[..., float]) -> float:
    return read("floopy_submit_ambiguous_total", provider="openai", resolution="adopted")
