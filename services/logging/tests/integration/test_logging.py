"""The real floopy-logging on a real broker and a real MongoDB: exact, whatever is repeated or killed."""

import signal

import pytest
from floopy_sinks.bench import Bench
from floopy_sinks.lines import encoded, failed, make_segment
from waiting import eventually

from floopy_common.domain.ids import new_batch_id
from floopy_common.events.lines import LINE_COMPLETED, LineCompleted
from floopy_logging.core.rows import request_row

SERVICE = "floopy-logging"


def _group(bench: Bench) -> str:
    return f"{bench.settings.topic_prefix}{SERVICE}.{LINE_COMPLETED}"


def _mixed(batch_id: str) -> list[LineCompleted]:
    lines = make_segment(batch_id)
    lines[3] = failed(lines[3])
    return lines


async def test_a_segment_delivered_again_over_half_its_rows_changes_nothing(bench: Bench) -> None:
    lines = _mixed(new_batch_id())
    async with bench.service(SERVICE):
        await bench.produce(lines)
        (receipt,) = await bench.receipts(1)
        assert (receipt["sink"], receipt["lines"], receipt["parked"]) == ("logging", 100, 0)
        assert await bench.rows("requests") == [request_row(line) for line in lines]
        removed = {"_id": {"$in": [line.line_id for line in lines[1::2]]}}
        await bench.mongo.collection("requests").delete_many(removed)

        where, last = await bench.produce(lines)
        await bench.caught_up(_group(bench), where, last)

    assert await bench.rows("requests") == [request_row(line) for line in lines]
    assert await bench.rows("receipts") == [receipt]


@pytest.mark.parametrize("name", ["logging.after_insert", "logging.after_receipt"])
async def test_killed_between_any_two_steps_the_state_is_exact(local_bench: Bench, name: str) -> None:
    bench = local_bench
    lines = _mixed(new_batch_id())
    where, last = await bench.produce(lines)

    async with bench.service(SERVICE, FLOOPY_FAIL_AT=name) as process:
        assert await process.exited() == -signal.SIGKILL
    assert await bench.committed(_group(bench), LINE_COMPLETED, where) <= last
    async with bench.service(SERVICE):
        await bench.receipts(1)
        await bench.caught_up(_group(bench), where, last)

    assert await bench.rows("requests") == [request_row(line) for line in lines]


async def test_a_line_it_cannot_take_is_parked_and_replaced_when_replayed(bench: Bench) -> None:
    batch_id = new_batch_id()
    lines = _mixed(batch_id)
    await bench.accept_only("requests", {"custom_id": {"$ne": "mine-42"}})
    async with bench.service(SERVICE, FLOOPY_FAIL_AT="logging.after_dead_letter") as process:
        where, last = await bench.produce(lines)
        assert await process.exited() == -signal.SIGKILL

    async with bench.service(SERVICE):
        (receipt,) = await bench.receipts(1)
        assert (receipt["lines"], receipt["parked"]) == (100, 1)
        await bench.caught_up(_group(bench), where, last)
        parked = await bench.mongo.collection("requests").find_one({"status": "parked"})
        assert parked is not None
        assert parked["_id"] == lines[41].line_id
        (letter, *_) = await bench.read(f"{LINE_COMPLETED}.dlq", 1)
        assert (letter.key, letter.value) == encoded(lines)[41]
        assert b"121" in dict(letter.headers)["floopy-dlq-reason"]
        await bench.accept_only("requests", {})

        code, said = await bench.floopy("dlq", "replay", "--group", _group(bench), "--json")

        assert (code, said) == (0, '{"replayed": 1, "gone": []}\n')

        async def whole() -> bool:
            return (await bench.rows("receipts"))[0]["parked"] == 0

        await eventually(whole, what="a receipt without parked lines")
    assert await bench.rows("requests") == [request_row(line) for line in lines]


async def test_a_line_still_refused_when_replayed_stays_parked(local_bench: Bench) -> None:
    bench = local_bench
    lines = _mixed(new_batch_id())
    await bench.accept_only("requests", {"custom_id": {"$ne": "mine-42"}})
    async with bench.service(SERVICE):
        where, last = await bench.produce(lines)
        await bench.caught_up(_group(bench), where, last)
        assert (await bench.floopy("dlq", "replay"))[0] == 0
        await bench.caught_up(_group(bench), where, last + 1)

    assert [row["parked"] for row in await bench.rows("receipts")] == [1]
    states = {row["offset"]: row["state"] for row in await bench.rows("dead_letters")}
    assert states == {41: "replayed", 100: "parked"}


async def test_a_letter_that_is_gone_is_said_to_be(local_bench: Bench) -> None:
    """The index says where a letter is; another record may lie there after the broker lost its log."""
    bench = local_bench
    async with bench.service(SERVICE):
        (offset,) = await bench.send(LINE_COMPLETED, 0, [(b"k", b"poison", None)])
        await bench.caught_up(_group(bench), 0, offset)
    letters = bench.mongo.collection("dead_letters")
    await letters.update_many({}, {"$set": {"offset": 7}})
    (row,) = await bench.rows("dead_letters")

    code, said = await bench.floopy("dlq", "replay")

    assert code == 1
    assert "not in its topic any more" in said
    assert await bench.rows("dead_letters") == [row]
    assert row["reason"] in (await bench.floopy("dlq", "list"))[1]
