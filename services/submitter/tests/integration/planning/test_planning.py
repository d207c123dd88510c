"""A batch that waits for its plan: what it becomes, and what is left of it when something is in the way."""

import asyncio
from typing import Any

import msgspec
import pytest

from floopy_common.chassis.clock import SystemClock
from floopy_common.domain.errors import LeaseLost
from floopy_common.domain.index import unpack_input
from floopy_common.providers.openai.request import TRANSLATOR_VERSION, upstream_length, upstream_line
from floopy_common.providers.pricing import price_version

CHAT = "/v1/chat/completions"
NOW = SystemClock().now()
SEGMENT_FIELDS = {
    *("_id", "batch_id", "org_id", "plan_id", "no", "first_line", "last_line", "lines", "bytes"),
    *("index_from", "index_to", "ready", "state", "lease", "manifest", "counts", "usage", "emitted"),
    "created_at",
}
SHARD_FIELDS = {
    *("_id", "batch_id", "org_id", "plan_id", "no", "provider", "account_id", "endpoint", "model", "group"),
    *("kind", "depth", "parent", "ranges", "lines", "bytes", "tokens_estimate", "segments", "state"),
    *("attempt", "attempts", "downloads", "waiting", "lease", "provider_batch_id", "provider_status"),
    *("provider_counts", "submitted_at", "poll", "cancel_asked_at", "archive", "ended", "ended_at"),
    *("refused", "created_at"),
}


class AnyLine(msgspec.Struct):
    custom_id: str
    body: msgspec.Raw


async def test_a_good_batch_gets_its_plan_in_one_write(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(25), cap=1_000)

    assert await world.planner(segment=(10, 10_000_000), shard=(20, 10_000_000)).step()

    batch = await world.batch(batch_id)
    plan = batch["plan"]
    assert (batch["status"], batch["version"], batch["lease"], batch["planning"]) == (
        "in_progress",
        2,
        None,
        None,
    )
    assert batch["in_progress_at"] == batch["next_look_at"] == batch["audit"]["next_at"]
    assert batch["counts"] == {"total": 25, "completed": 0, "failed": 0}
    assert batch["summary"]["shards"] == {"planned": 2}
    assert batch["audit"]["stage"] == "open"
    assert batch["outbox"] == []
    assert plan == {
        "plan_id": plan["plan_id"],
        "total": 25,
        "segments": 3,
        "shards": 2,
        "model": "gpt-4o-mini",
        "groups": [{"model": "gpt-4o-mini", "rates": plan["groups"][0]["rates"]}],
        "index_blob": plan["index_blob"],
        "price_version": price_version(),
        "translator_version": TRANSLATOR_VERSION,
        "month": plan["month"],
    }
    assert plan["groups"][0]["rates"].keys() == {
        "input_nano",
        "cached_nano",
        "output_nano",
        "flag",
        "cache_write_nano",
    }
    assert plan["groups"][0]["rates"]["input_nano"] > 0
    assert await world.reserved() == 25
    assert world.woken == ["planned"]


async def test_segments_and_shards_have_every_field(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(25))

    await world.planner(segment=(10, 10_000_000), shard=(20, 10_000_000)).step()

    plan_id = (await world.batch(batch_id))["plan"]["plan_id"]
    segments, shards = await world.segments(batch_id), await world.shards(batch_id)
    assert [s["_id"] for s in segments] == [f"{plan_id}:{no:05d}" for no in range(3)]
    assert [s["_id"] for s in shards] == [f"{plan_id}:{no:05d}" for no in range(2)]
    assert all(s.keys() == SEGMENT_FIELDS for s in segments)
    assert all(s.keys() == SHARD_FIELDS for s in shards)
    assert [(s["first_line"], s["last_line"], s["index_from"], s["index_to"]) for s in segments] == [
        (1, 10, 0, 10),
        (11, 20, 10, 20),
        (21, 25, 20, 25),
    ]
    assert [(s["ranges"], s["segments"], s["lines"]) for s in shards] == [
        ([[1, 20]], [0, 1], 20),
        ([[21, 25]], [2], 5),
    ]


async def test_the_index_finds_every_line_and_its_upstream_bytes(world: Any, make_line: Any) -> None:
    lines = [make_line("é"), b"", make_line("b").replace(b'": ', b'" \t:\r  '), make_line("c") + b"\r"]
    content = b"\xef\xbb\xbf" + b"\n".join(lines)
    batch_id = await world.create(content)

    await world.planner().step()

    plan = (await world.batch(batch_id))["plan"]
    entries = list(unpack_input(await world.blobs.read_bytes(plan["index_blob"])))
    assert [entry.line_no for entry in entries] == [1, 3, 4]
    read = [msgspec.json.decode(content[e.offset : e.offset + e.length], type=AnyLine) for e in entries]
    assert [line.custom_id for line in read] == ["é", "b", "c"]
    upstream = [
        upstream_line("0123456789", entry.line_no, CHAT, bytes(line.body))
        for entry, line in zip(entries, read, strict=True)
    ]
    [shard] = await world.shards(batch_id)
    assert shard["bytes"] == sum(len(line) for line in upstream)
    assert shard["bytes"] == sum(
        upstream_length(entry.line_no, CHAT, len(line.body))
        for entry, line in zip(entries, read, strict=True)
    )
    assert shard["tokens_estimate"] == shard["bytes"] // 4
    [blob] = await world.index_blobs()
    assert (blob["_id"], blob["pins"]) == (plan["index_blob"], [batch_id])


async def test_a_refused_batch_fails_with_its_event_and_leaves_nothing(world: Any, make_line: Any) -> None:
    content = make_line("a") + b"\n{\n\n" + make_line("a") + b"\n"
    batch_id = await world.create(content, cap=10)

    assert await world.planner().step()

    batch = await world.batch(batch_id)
    assert (batch["status"], batch["plan"], batch["lease"], batch["planning"]) == ("failed", None, None, None)
    assert [(e["code"], e["line"], e["param"]) for e in batch["errors"]] == [
        ("invalid_json_line", 2, None),
        ("duplicate_custom_id", 4, "custom_id"),
    ]
    assert all(error.keys() == {"code", "line", "message", "param"} for error in batch["errors"])
    assert (batch["audit"]["stage"], batch["audit"]["balanced"]) == ("closed", True)
    assert batch["failed_at"] is not None
    assert [(entry["topic"], entry["by"]) for entry in batch["outbox"]] == [
        ("batch.failed", "floopy-submitter")
    ]
    assert await world.segments(batch_id) == await world.shards(batch_id) == []
    assert await world.index_blobs() == []
    assert await world.reserved() == 0
    assert world.woken == ["refused"]


@pytest.mark.surface("4.4 duplicate_custom_id at a distance: other segments lie between; 9.6")
async def test_a_custom_id_repeated_forty_thousand_lines_on_is_found(world: Any, make_line: Any) -> None:
    lines = [make_line(f"request-{number}") for number in range(1, 40_001)]
    lines[4], lines[39_997] = make_line("same"), make_line("same")

    assert await refusal(world, await world.create(b"\n".join(lines))) == {
        "code": "duplicate_custom_id",
        "line": 39_998,
        "message": "The custom_id 'same' for this request is a duplicate of another request. "
        "The custom_id parameter must be unique for each request in a batch.",
        "param": "custom_id",
    }


@pytest.mark.surface("4.4 a bad file of 200 MB is read no further than its hundredth fault; up to 100 errors")
async def test_a_file_that_is_wrong_throughout_is_not_read_to_its_end(world: Any) -> None:
    pieces: list[None] = []

    async def between() -> None:
        pieces.append(None)

    batch_id = await world.create(b'{"custom_id": 1}\n' * 1_000_000)
    await world.planner(between=between).step()

    batch = await world.batch(batch_id)
    assert [error["line"] for error in batch["errors"]] == list(range(1, 101))
    assert len(pieces) == 1
    assert await world.index_blobs() == []


async def refusal(world: Any, batch_id: str) -> dict[str, Any]:
    """The only error of the batch once a planner had it."""
    assert await world.planner().step()
    batch = await world.batch(batch_id)
    assert batch["status"] == "failed"
    [error] = batch["errors"]
    return dict(error)


@pytest.mark.surface("4.4 invalid_request file_id")
async def test_an_unknown_file_fails_the_batch(world: Any) -> None:
    error = await refusal(world, await world.create(None))

    assert error == {
        "code": "invalid_request",
        "line": None,
        "message": "Cannot find file file-test, or organization org_a does not have access to it.",
        "param": "file_id",
    }


@pytest.mark.surface("5 input file with another purpose")
async def test_a_file_of_another_purpose_fails_the_batch(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(1))
    await world.batches.mark(batch_id, {}, {"input.purpose": "fine-tune"})

    error = await refusal(world, batch_id)

    assert (error["code"], error["param"]) == ("invalid_request", "file_id")


async def test_input_that_is_gone_fails_the_batch(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(1))
    await world.mongo.collection("blobs").delete_many({})

    error = await refusal(world, batch_id)

    assert (error["code"], error["param"]) == ("invalid_request", "file_id")


async def test_damaged_input_fails_the_batch(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(1))
    await world.mongo.collection("blob_chunks").delete_many({})

    error = await refusal(world, batch_id)

    assert (error["code"], error["param"]) == ("invalid_request", "file_id")
    assert "damaged" in error["message"]


async def test_a_batch_above_the_cap_is_refused_and_reserves_nothing(world: Any, make_lines: Any) -> None:
    await world.create(make_lines(6), cap=10)
    await world.planner().step()
    batch_id = await world.create(make_lines(5), cap=10)

    error = await refusal(world, batch_id)

    assert (error["code"], error["line"]) == ("insufficient_quota", None)
    assert await world.reserved() == 6
    assert len(await world.index_blobs()) == 1


async def test_a_batch_that_just_fits_the_cap_is_planned(world: Any, make_lines: Any) -> None:
    await world.create(make_lines(6), cap=10)
    await world.create(make_lines(4), cap=10)

    assert await world.planner().step()
    assert await world.planner().step()

    assert await world.reserved() == 10


async def test_nothing_to_plan_is_said(world: Any) -> None:
    assert not await world.planner().step()


async def test_cancelling_while_the_input_is_read_leaves_nothing_live(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(20), cap=100)

    async def cancel() -> None:
        await world.cancel(batch_id)

    assert await world.planner(between=cancel).step()

    await assert_nothing_live(world, batch_id, "cancelling")
    assert world.woken == []


async def test_cancelling_just_before_the_plan_counts_leaves_nothing_live(
    world: Any, make_lines: Any
) -> None:
    batch_id = await world.create(make_lines(20), cap=100)
    store = world.store()
    claim = await store.claim(batch_id, NOW)
    async with claim.hold() as hold:
        assert await hold.reserve(20)
        await write_something(hold)
        await world.cancel(batch_id)
        assert not await hold.planned({"plan": {"plan_id": hold.plan_id}}, claim.batch["created_at"])

    await store.abandon(batch_id, claim.plan_id)

    await assert_nothing_live(world, batch_id, "cancelling")


async def test_a_cancelled_batch_whose_planner_died_is_tidied(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(20), cap=100)
    await die_with_a_whole_plan(world, batch_id)
    assert await world.reserved() == 20
    await world.cancel(batch_id)
    assert not await world.planner().step(), "the lease may still be somebody's"
    await world.expire_lease(batch_id)

    assert await world.planner().step()

    await assert_nothing_live(world, batch_id, "cancelling")
    assert not await world.planner().step()


async def assert_nothing_live(world: Any, batch_id: str, status: str) -> None:
    batch = await world.batch(batch_id)
    assert (batch["status"], batch["plan"], batch["planning"]) == (status, None, None)
    assert await world.segments(batch_id) == await world.shards(batch_id) == []
    assert await world.reserved() == 0


async def write_something(hold: Any) -> None:
    """A segment and a shard of the hold's plan."""
    document = {"_id": f"{hold.plan_id}:00000", "batch_id": hold.batch["_id"], "plan_id": hold.plan_id}
    await hold.insert_segments([{**document, "no": 0}])
    await hold.insert_shards([{**document, "no": 0, "state": "planned"}])


async def die_with_a_whole_plan(world: Any, batch_id: str) -> Any:
    """Everything of a plan is stored but the transition; the lease stays. Its claim."""
    claim = await world.claim("dead")
    async with claim.hold() as hold:
        assert await hold.reserve(20)
        await write_something(hold)
    return claim


async def test_a_crash_before_the_transition_leaves_the_next_plan_the_only_one(
    world: Any, make_lines: Any
) -> None:
    batch_id = await world.create(make_lines(20), cap=20)
    dead = await die_with_a_whole_plan(world, batch_id)
    await world.expire_lease(batch_id)

    assert await world.planner(shard=(10, 10_000_000)).step()

    batch = await world.batch(batch_id)
    plan_id = batch["plan"]["plan_id"]
    assert plan_id != dead.plan_id
    assert batch["status"] == "in_progress"
    assert batch["planning"] is None
    assert {s["plan_id"] for s in await world.segments(batch_id)} == {plan_id}
    assert [s["plan_id"] for s in await world.shards(batch_id)] == [plan_id] * 2
    assert await world.reserved() == 20


async def test_a_zombie_changes_nothing_of_its_successors_plan(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(20), cap=20)
    store = world.store("zombie")
    zombie = await store.claim(batch_id, NOW)
    async with zombie.hold() as hold:
        await world.expire_lease(batch_id)
        await world.planner().step()
        before = [await world.batch(batch_id), await world.segments(batch_id), await world.shards(batch_id)]

        await write_something(hold)
        assert await hold.reserve(20)
        assert not await hold.planned({"plan": None}, zombie.batch["created_at"])
        assert not await hold.refused({"errors": []}, zombie.batch["created_at"])
    await store.abandon(batch_id, zombie.plan_id)

    after = [await world.batch(batch_id), await world.segments(batch_id), await world.shards(batch_id)]
    assert after == before
    assert await world.reserved() == 20


async def test_a_zombie_reserves_nothing_behind_whoever_tidied_up(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(20), cap=100)
    zombie = await world.claim("zombie", 0.1)
    await world.cancel(batch_id)
    async with asyncio.timeout(10):
        while not await world.planner().step():
            await asyncio.sleep(0.02)

    with pytest.raises(LeaseLost):
        async with zombie.hold() as hold:
            await hold.reserve(20)

    await assert_nothing_live(world, batch_id, "cancelling")


async def test_a_zombie_cannot_decide_while_its_successor_still_reads(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(20))
    now = (await world.batch(batch_id))["created_at"]
    zombie = await world.claim("zombie")
    async with zombie.hold() as hold:
        await world.expire_lease(batch_id)
        successor = await world.claim("b")

        assert not await hold.planned({"plan": {"plan_id": hold.plan_id}}, now)
        assert not await hold.refused({"errors": []}, now)

    assert await world.batch(batch_id) == successor.batch


async def test_abandoning_a_plan_that_won_after_all_keeps_it(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(20), cap=20)
    await world.planner().step()
    batch = await world.batch(batch_id)

    await world.store().abandon(batch_id, batch["plan"]["plan_id"])

    assert await world.batch(batch_id) == batch
    assert len(await world.shards(batch_id)) == 1
    assert await world.reserved() == 20


async def test_a_batch_that_kills_its_planners_fails_in_the_end(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(20), cap=20)
    await die_with_a_whole_plan(world, batch_id)
    await world.expire_lease(batch_id, attempt=5)

    error = await refusal(world, batch_id)

    assert error["code"] == "planning_failed"
    await assert_nothing_live(world, batch_id, "failed")


async def test_a_batch_gets_five_tries(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(20))
    await die_with_a_whole_plan(world, batch_id)
    await world.expire_lease(batch_id, attempt=4)

    await world.planner().step()

    assert (await world.batch(batch_id))["status"] == "in_progress"


async def test_the_lease_is_renewed_while_a_slow_input_is_read(world: Any, make_line: Any) -> None:
    line = make_line("a", content="x" * 255 * 1024 * 4)
    batch_id = await world.create(line)

    async def rival_fails() -> None:
        await asyncio.sleep(0.4)
        assert await world.store("rival").claim(batch_id, NOW) is None

    assert await world.planner(ttl=0.6, between=rival_fails).step()

    assert (await world.batch(batch_id))["status"] == "in_progress"


async def test_a_planner_that_lost_its_lease_stops_and_leaves_the_batch(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(20), cap=20)
    taken: list[Any] = []

    async def rival_takes_it() -> None:
        await world.expire_lease(batch_id)
        taken.append(await world.claim("rival"))
        await asyncio.Event().wait()

    assert await world.planner(ttl=0.6, between=rival_takes_it).step()

    batch = await world.batch(batch_id)
    assert batch["status"] == "validating"
    assert batch["lease"]["token"] == taken[0].batch["lease"]["token"]
    assert await world.segments(batch_id) == await world.shards(batch_id) == []
    assert await world.index_blobs() == []


async def test_the_reservation_stays_in_the_month_of_the_first_claim(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(20), cap=20)
    dead = await die_with_a_whole_plan(world, batch_id)
    await world.expire_lease(batch_id)
    await world.batches.mark(batch_id, {}, {"planning.month": "202001"})

    await world.planner().step()

    assert (await world.batch(batch_id))["plan"]["month"] == "202001"
    assert dead.batch["planning"]["month"] != "202001"
    assert await world.caps.used("org_a", "202001") == 20


@pytest.mark.parametrize("content", [b'{"a":' * 100_000, b"\n" * 200_000, b"x" * (20 * 1024 * 1024)])
async def test_hostile_input_fails_its_batch_and_no_planner(world: Any, content: bytes) -> None:
    batch_id = await world.create(content)

    error = await refusal(world, batch_id)

    assert error["code"] in {"invalid_json_line", "empty_file"}


async def test_a_large_batch_is_read_in_pieces(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(30_000))
    pieces = 0

    async def count() -> None:
        nonlocal pieces
        pieces += 1

    await world.planner(between=count).step()

    assert pieces > 10
    assert (await world.batch(batch_id))["plan"]["segments"] == 6
    assert sum(s["lines"] for s in await world.segments(batch_id)) == 30_000
