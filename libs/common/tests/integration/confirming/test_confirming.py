"""The confirm step against a real MongoDB: what is stored, repeated, asked and confirmed."""

from collections.abc import Sequence
from typing import Any

import pytest
from floopy_sinks.confirming import Parking, Refuse, logging_sink, records, row, rows_of
from floopy_sinks.lines import make_segment

from floopy_common.chassis.mongo import Collection, Document, Mongo
from floopy_common.domain.segment import Sink
from floopy_common.stores.confirming import Confirming, Wanted, parked_row
from floopy_common.stores.segment_runs import SegmentRun


async def test_a_segment_is_confirmed_when_its_last_line_is_there(
    mongo: Mongo, confirming: Confirming
) -> None:
    lines = make_segment("batch_1", 20)

    await confirming.take(records(lines[:19]), row)
    assert await rows_of(mongo, "receipts") == []
    await confirming.take(records(lines[19:]), row)

    assert await rows_of(mongo) == [row(line) for line in lines]
    (receipt,) = await rows_of(mongo, "receipts")
    assert receipt.pop("at") is not None
    assert receipt == {
        "_id": "batch_1:00000:logging",
        "batch_id": "batch_1",
        "sink": "logging",
        "segment": 0,
        "lines": 20,
        "parked": 0,
        "unbroken": True,
    }


async def test_one_delivery_may_hold_many_segments_of_many_batches(
    mongo: Mongo, confirming: Confirming, rolled_up: list[tuple[str, int]]
) -> None:
    segments = [make_segment(f"batch_{b}", 10, no=no, segments=3) for b in range(4) for no in range(3)]

    await confirming.take(records([line for lines in zip(*segments, strict=True) for line in lines]), row)

    assert len(await rows_of(mongo)) == 120
    assert len(await rows_of(mongo, "receipts")) == 12
    assert sorted(rolled_up) == [(f"batch_{b}", no) for b in range(4) for no in range(3)]


async def test_a_repeat_changes_nothing_not_even_the_time_of_the_receipt(
    mongo: Mongo, confirming: Confirming
) -> None:
    lines = make_segment("batch_1", 20)
    await confirming.take(records(lines), row)
    before = (await rows_of(mongo), await rows_of(mongo, "receipts"))

    await confirming.take(records([*lines, *lines[:5]]), row)

    assert (await rows_of(mongo), await rows_of(mongo, "receipts")) == before


async def test_a_lost_receipt_is_written_again_with_what_precedes_it(
    mongo: Mongo, confirming: Confirming, rolled_up: list[tuple[str, int]]
) -> None:
    lines = make_segment("batch_1", 20)
    await confirming.take(records(lines), row)
    await mongo.collection("receipts").delete_many({})

    await confirming.take(records(lines[3:4]), row)

    assert len(await rows_of(mongo, "receipts")) == 1
    assert rolled_up == [("batch_1", 0)] * 2


async def test_a_batch_whose_audit_is_closed_takes_no_rows(mongo: Mongo, confirming: Confirming) -> None:
    await mongo.collection("batches").insert_new({"_id": "batch_1", "audit": {"stage": "closed"}})
    closed, open_ = make_segment("batch_1", 20), make_segment("batch_2", 20)

    await confirming.take(records(closed + open_), row)

    assert await rows_of(mongo) == [row(line) for line in open_]
    assert [r["batch_id"] for r in await rows_of(mongo, "receipts")] == ["batch_2"]


async def test_a_line_that_came_late_completes_the_segment(mongo: Mongo, confirming: Confirming) -> None:
    lines = make_segment("batch_1", 20)
    await confirming.take(records(lines[:8]), row)
    await confirming.take(records(lines[9:]), row)  # the ninth was a dead letter
    assert await rows_of(mongo, "receipts") == []

    await confirming.take(records(lines[8:9]), row)

    assert [r["lines"] for r in await rows_of(mongo, "receipts")] == [20]


async def test_a_segment_whose_lines_went_to_two_processes_is_confirmed_by_the_last_line(
    mongo: Mongo, parking: Parking, confirming: Confirming
) -> None:
    lines = make_segment("batch_1", 20)
    other = Confirming(mongo, Sink.LOGGING, "requests", park=parking, hit=lambda _: None)
    await confirming.take(records(lines[:5]), row)
    await other.take(records(lines[5:12]), row)

    await confirming.take(records(lines[12:]), row)

    assert await rows_of(mongo) == [row(line) for line in lines]
    assert [r["lines"] for r in await rows_of(mongo, "receipts")] == [20]


async def test_a_batch_closed_between_two_of_its_segments_takes_no_rows_of_the_second(
    mongo: Mongo, confirming: Confirming
) -> None:
    await mongo.collection("batches").insert_new({"_id": "batch_1", "audit": {"stage": "open"}})
    first, second = (make_segment("batch_1", 10, no=no, segments=2) for no in range(2))
    await confirming.take(records(first), row)
    await mongo.collection("batches").update_one({"_id": "batch_1"}, {"$set": {"audit.stage": "closed"}})

    await confirming.take(records(second), row)

    assert await rows_of(mongo) == [row(line) for line in first]


async def test_while_a_segment_arrives_nothing_is_asked_of_the_database(
    mongo: Mongo, confirming: Confirming, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = make_segment("batch_1", 20)
    await confirming.take(records(lines[:5]), row)
    asked: list[str] = []
    for name in ("find_all", "count"):
        original = getattr(Collection, name)

        async def spy(
            self: Collection, *args: Any, name: str = name, original: Any = original, **more: Any
        ) -> Any:
            asked.append(name)
            return await original(self, *args, **more)

        monkeypatch.setattr(Collection, name, spy)

    await confirming.take(records(lines[5:12]), row)
    assert asked == []
    await confirming.take(records(lines[12:]), row)

    assert asked == []
    assert [receipt["lines"] for receipt in await rows_of(mongo, "receipts")] == [20]


async def test_a_repeat_of_a_confirmed_segment_reads_ids_and_its_receipt_only(
    confirming: Confirming,
    rolled_up: list[tuple[str, int]],
    told: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = make_segment("batch_1", 20)
    parts = [records(lines[:12]), records(lines[12:])]
    for part in parts:
        await confirming.take(part, row)
    called: list[str] = []
    for name in ("find_all", "count", "insert_missing", "aggregate", "update_each", "replace"):
        original = getattr(Collection, name)

        async def spy(
            self: Collection, *args: Any, name: str = name, original: Any = original, **more: Any
        ) -> Any:
            called.append(f"{self.name}.{name}")
            return await original(self, *args, **more)

        monkeypatch.setattr(Collection, name, spy)

    for part in parts:
        await confirming.take(part, row)

    assert called == ["requests.find_all", "receipts.find_all"] * 2
    assert rolled_up == [("batch_1", 0)]
    # whoever stored the receipt may have died before this, and then the last line comes again
    assert told == [("batch_1", 0)] * 2


async def test_what_was_only_counted_is_looked_after_at_every_repeat(
    mongo: Mongo, confirming: Confirming, rolled_up: list[tuple[str, int]]
) -> None:
    """Its rows are there, but perhaps whoever stored them died before it had done the rest."""
    lines = make_segment("batch_1", 20)
    parts = [records(lines[:12]), records(lines[12:])]
    await mongo.collection("requests").insert_many([row(line) for line in lines])

    for part in parts:
        await confirming.take(part, row)

    assert rolled_up == [("batch_1", 0)] * 2
    assert [receipt["unbroken"] for receipt in await rows_of(mongo, "receipts")] == [False]


async def test_a_row_that_was_lost_is_stored_again_whatever_its_receipt_says(
    mongo: Mongo, confirming: Confirming
) -> None:
    lines = make_segment("batch_1", 20)
    await confirming.take(records(lines[:12]), row)
    await confirming.take(records(lines[12:]), row)
    await mongo.collection("requests").delete_many({"_id": lines[3].line_id})

    await confirming.take(records(lines[:12]), row)

    assert await rows_of(mongo) == [row(line) for line in lines]


async def test_small_segments_of_one_delivery_are_confirmed_together(
    mongo: Mongo, confirming: Confirming, rolled_up: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery = [line for number in range(5) for line in make_segment(f"batch_{number}", 20)]
    asked: list[tuple[str, str]] = []
    for name in ("find_all", "count", "aggregate", "insert_missing", "replace"):
        original = getattr(Collection, name)

        async def spy(
            self: Collection, *args: Any, name: str = name, original: Any = original, **more: Any
        ) -> Any:
            asked.append((name, self.name))
            return await original(self, *args, **more)

        monkeypatch.setattr(Collection, name, spy)

    await confirming.take(records(delivery), row)

    assert asked == [
        ("find_all", "batches"),
        ("insert_missing", "requests"),
        ("insert_missing", "receipts"),
    ], "nothing of the rows, and once whatever the delivery holds"
    assert rolled_up == [(f"batch_{number}", 0) for number in range(5)]
    assert await rows_of(mongo) == [row(line) for line in delivery]


async def test_a_small_segment_that_is_there_already_is_counted_not_believed(
    mongo: Mongo, confirming: Confirming
) -> None:
    lines = make_segment("batch_1", 20)
    there = {**row(lines[3]), "custom_id": "of before"}
    await mongo.collection("requests").insert_many([there, parked_row(lines[7])])

    await confirming.take(records(lines), row)
    await confirming.take(records(lines), row)

    assert await rows_of(mongo) == [there if line is lines[3] else row(line) for line in lines]
    assert [(one["lines"], one["parked"]) for one in await rows_of(mongo, "receipts")] == [(20, 0)]


async def test_rows_that_were_lost_while_a_segment_arrived_are_not_confirmed(
    mongo: Mongo, confirming: Confirming
) -> None:
    lines = make_segment("batch_1", 20)
    await confirming.take(records(lines[:12]), row)
    # what follows was stored by another process that has had the partition meanwhile
    await Confirming(mongo, Sink.LOGGING, "requests", park=confirming._park, hit=lambda _: None).store(
        [(Wanted(one, parked=False), row(one.line)) for one in records(lines[12:15])]
    )
    await mongo.collection("requests").delete_many({"_id": lines[2].line_id})

    await confirming.take(records(lines[15:]), row)

    assert await rows_of(mongo, "receipts") == []


class Counted:
    """Counts the rows of one segment while they are stored."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def add(self, rows: Sequence[Document]) -> None:
        self.ids += [row["_id"] for row in rows]


async def test_a_tally_is_shown_where_it_has_every_row_of_its_segment(
    mongo: Mongo, parking: Parking, refuse: Refuse
) -> None:
    shown: dict[tuple[str, int], list[str] | None] = {}

    async def before_receipts(runs: Sequence[SegmentRun]) -> None:
        for run in runs:
            assert run.tally is None or isinstance(run.tally, Counted)
            shown[run.key] = None if run.tally is None else run.tally.ids

    def sink() -> Confirming:
        return logging_sink(mongo, parking, before_receipts=before_receipts, tally=Counted)

    whole, refused, begun = (make_segment("batch_1", 20, no=no, segments=3) for no in range(3))
    await refuse(refused[6].custom_id)
    await sink().take(records([*begun[:8]]), row)
    ours = sink()
    for lines in (whole, refused):
        await ours.take(records(lines[:8]), row)
    await ours.take(records([*whole[8:], *refused[8:], *begun]), row)

    assert shown == {
        ("batch_1", 0): [line.line_id for line in whole],
        ("batch_1", 1): None,
        ("batch_1", 2): None,
    }
