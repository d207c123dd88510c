"""A batch that waits for its plan: what it becomes, and what it is refused for."""

from typing import Any

import msgspec
import pytest

from floopy_common.domain.index import unpack_input
from floopy_common.providers.openai.request import TRANSLATOR_VERSION, upstream_length, upstream_line
from floopy_common.providers.pricing import price_version

CHAT = "/v1/chat/completions"
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

    assert await world.refusal(await world.create(b"\n".join(lines))) == {
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


@pytest.mark.surface("4.4 invalid_request file_id")
async def test_an_unknown_file_fails_the_batch(world: Any) -> None:
    error = await world.refusal(await world.create(None))

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

    error = await world.refusal(batch_id)

    assert (error["code"], error["param"]) == ("invalid_request", "file_id")


async def test_input_that_is_gone_fails_the_batch(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(1))
    await world.mongo.collection("blobs").delete_many({})

    error = await world.refusal(batch_id)

    assert (error["code"], error["param"]) == ("invalid_request", "file_id")


async def test_damaged_input_fails_the_batch(world: Any, make_lines: Any) -> None:
    batch_id = await world.create(make_lines(1))
    await world.mongo.collection("blob_chunks").delete_many({})

    error = await world.refusal(batch_id)

    assert (error["code"], error["param"]) == ("invalid_request", "file_id")
    assert "damaged" in error["message"]


async def test_a_batch_above_the_cap_is_refused_and_reserves_nothing(world: Any, make_lines: Any) -> None:
    await world.create(make_lines(6), cap=10)
    await world.planner().step()
    batch_id = await world.create(make_lines(5), cap=10)

    error = await world.refusal(batch_id)

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


@pytest.mark.parametrize("content", [b'{"a":' * 100_000, b"\n" * 200_000, b"x" * (20 * 1024 * 1024)])
async def test_hostile_input_fails_its_batch_and_no_planner(world: Any, content: bytes) -> None:
    batch_id = await world.create(content)

    error = await world.refusal(batch_id)

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
