"""Rows the database does not take: parked as dead letters, counted in the receipt, replaced later."""

import socket
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

import msgspec
import pytest
from floopy_sinks.confirming import Parking, Refuse, records, row, rows_of
from floopy_sinks.lines import make_segment
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import BulkWriteError

from floopy_common.chassis.mongo import DatabaseError, Document, Mongo
from floopy_common.chassis.producer import NotSent
from floopy_common.domain.segment import Sink
from floopy_common.events.lines import LineCompleted, LineUsage
from floopy_common.stores.confirming import Confirming, Wanted, parked_row
from floopy_common.stores.refusals import refusals
from floopy_common.stores.segment_runs import SegmentRun, runs_of


async def test_a_refused_row_is_parked_and_the_segment_completes(
    mongo: Mongo, confirming: Confirming, parking: Parking, refuse: Refuse
) -> None:
    lines = make_segment("batch_1", 20)
    await refuse("mine-7")

    await confirming.take(records(lines), row)

    assert [(line, "121" in reason) for line, reason in parking.letters] == [(lines[6].line_id, True)]
    expected = [row(line) for line in lines]
    expected[6] = parked_row(lines[6])
    assert await rows_of(mongo) == expected
    assert [(r["lines"], r["parked"]) for r in await rows_of(mongo, "receipts")] == [(20, 1)]


async def test_a_parked_row_is_replaced_when_the_line_comes_again(
    mongo: Mongo, confirming: Confirming, parking: Parking, refuse: Refuse
) -> None:
    lines = make_segment("batch_1", 20)
    await refuse("mine-7")
    await confirming.take(records(lines), row)

    await confirming.take(records(lines[6:7]), row)
    assert len(parking.letters) == 2
    assert [r["parked"] for r in await rows_of(mongo, "receipts")] == [1]
    await refuse("")
    await confirming.take(records(lines[6:7]), row)

    assert len(parking.letters) == 2
    assert await rows_of(mongo) == [row(line) for line in lines]
    assert [r["parked"] for r in await rows_of(mongo, "receipts")] == [0]


async def test_a_receipt_does_not_tell_of_a_parked_row_that_was_replaced_meanwhile(
    mongo: Mongo, parking: Parking, refuse: Refuse
) -> None:
    lines = make_segment("batch_1", 20)
    other = Confirming(mongo, Sink.LOGGING, "requests", park=parking, hit=lambda _: None)
    told = 0

    async def before_receipts(_: Sequence[SegmentRun]) -> None:
        nonlocal told
        told += 1
        if told == 1:
            await refuse("")
            await other.take(records(lines[6:7]), row)

    slow = Confirming(
        mongo, Sink.LOGGING, "requests", park=parking, hit=lambda _: None, before_receipts=before_receipts
    )
    await refuse("mine-7")
    await slow.take(records(lines), row)

    assert await rows_of(mongo) == [row(line) for line in lines]
    assert [r["parked"] for r in await rows_of(mongo, "receipts")] == [0]
    assert told == 2


async def test_a_line_that_cannot_even_be_parked_stops_nothing(
    mongo: Mongo, confirming: Confirming, parking: Parking
) -> None:
    lines, behind = make_segment("batch_1", 20), make_segment("batch_2", 20)
    before_time = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    timing = msgspec.structs.replace(lines[6].timing, completed_at=before_time)
    lines[6] = msgspec.structs.replace(lines[6], timing=timing)

    def unfit(line: LineCompleted) -> Document:
        return {**row(line), "at": line.timing.completed_at}

    await confirming.take(records([*lines, *behind]), unfit)

    assert [line for line, _ in parking.letters] == [lines[6].line_id]
    assert len(await rows_of(mongo)) == 39
    assert [r["batch_id"] for r in await rows_of(mongo, "receipts")] == ["batch_2"]


@pytest.mark.parametrize("code", [112, 11601, 14031])
def test_what_is_no_fault_of_the_row_parks_nothing(code: int) -> None:
    """A conflict, an interruption, a full disk."""
    failure = {"index": 0, "code": code, "errmsg": "not now"}
    with pytest.raises(BulkWriteError):
        refusals(BulkWriteError({"writeErrors": [failure], "writeConcernErrors": []}))


async def test_only_the_row_the_driver_cannot_encode_is_parked(
    mongo: Mongo, confirming: Confirming, parking: Parking
) -> None:
    lines = make_segment("batch_1", 20)
    for number in (4, 11):
        lines[number] = msgspec.structs.replace(lines[number], usage=LineUsage(2**63, 0, 0, 0, 0))

    await confirming.take(records(lines), row)

    assert [line for line, _ in parking.letters] == [lines[4].line_id, lines[11].line_id]
    assert {r["_id"] for r in await rows_of(mongo) if r["status"] == "parked"} == {
        lines[4].line_id,
        lines[11].line_id,
    }
    assert [r["parked"] for r in await rows_of(mongo, "receipts")] == [2]


async def test_a_row_too_large_for_the_database_is_parked(
    mongo: Mongo, confirming: Confirming, parking: Parking
) -> None:
    lines = make_segment("batch_1", 5)
    lines[2] = msgspec.structs.replace(lines[2], custom_id="x" * 17_000_000)

    await confirming.take(records(lines), row)

    assert [line for line, _ in parking.letters] == [lines[2].line_id]
    assert len(await rows_of(mongo)) == 5


async def test_without_dead_letters_nothing_is_parked_nor_confirmed(
    mongo: Mongo, confirming: Confirming, parking: Parking, refuse: Refuse
) -> None:
    lines = make_segment("batch_1", 20)
    await refuse("mine-7")
    parking.away = True

    with pytest.raises(NotSent):
        await confirming.take(records(lines), row)

    assert len(await rows_of(mongo)) == 19
    assert await rows_of(mongo, "receipts") == []


async def test_a_database_that_cannot_answer_parks_nothing(
    mongo_uri: str, mongo_database: str, parking: Parking
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        client = AsyncIOMotorClient(
            f"mongodb://127.0.0.1:{silent.getsockname()[1]}", serverSelectionTimeoutMS=200
        )
        away = Confirming(
            Mongo(client, mongo_database), Sink.LOGGING, "requests", park=parking, hit=lambda _: None
        )
        one = Wanted(records(make_segment("batch_1", 1))[0], parked=False)

        with pytest.raises(DatabaseError):
            await away.store([(one, row(one.record.line))])
        client.close()

    assert parking.letters == []


async def test_a_row_parked_by_another_process_is_found_when_its_line_is_inserted(
    mongo: Mongo, parking: Parking, confirming: Confirming, refuse: Refuse
) -> None:
    lines = make_segment("batch_1", 20)
    other = Confirming(mongo, Sink.LOGGING, "requests", park=parking, hit=lambda _: None)
    await confirming.take(records(lines[:5]), row)
    await refuse("mine-7")
    await other.take(records(lines[5:12]), row)
    await refuse("")

    runs = runs_of(records(lines[5:]))
    wanted = await confirming.wanted(runs)
    stored = await confirming.store([(one, row(one.record.line)) for one in wanted])
    await confirming.confirm(runs)

    assert await rows_of(mongo) == [row(line) for line in lines]
    assert stored == {line.line_id for line in lines[12:]}, "what was there is not told to be as given"
    assert [(r["lines"], r["parked"]) for r in await rows_of(mongo, "receipts")] == [(20, 0)]


async def test_a_line_parked_by_another_process_is_put_right_where_the_segment_was_left_unfinished(
    mongo: Mongo, parking: Parking, confirming: Confirming, refuse: Refuse
) -> None:
    lines = make_segment("batch_1", 20)
    other = Confirming(mongo, Sink.LOGGING, "requests", park=parking, hit=lambda _: None)
    await confirming.take(records(lines[:5]), row)
    await refuse("mine-7")
    await other.take(records(lines), row)
    assert [r["parked"] for r in await rows_of(mongo, "receipts")] == [1]
    await refuse("")

    await confirming.take(records(lines[6:7]), row)

    assert await rows_of(mongo) == [row(line) for line in lines]
    assert [r["parked"] for r in await rows_of(mongo, "receipts")] == [0]
