"""Usage that was summed up while its rows were stored is what a query over the rows says."""

from collections.abc import Sequence
from datetime import timedelta, timezone
from typing import Any

import msgspec
from floopy_sinks.lines import COMPLETED, failed, make_segment

from floopy_common.chassis.mongo import Mongo
from floopy_common.domain.line import LineStatus
from floopy_common.events.lines import LineCompleted, LineCost, LineTiming, LineUsage
from floopy_common.stores.ledger import LedgerStore, LedgerTally
from floopy_common.stores.segment_runs import SegmentRun
from floopy_metering.core.rows import ledger_row

LARGE = 2**62


def _run(lines: Sequence[LineCompleted]) -> SegmentRun:
    first = lines[0]
    return SegmentRun(first.org_id, first.batch_id, first.segments, first.segment)


def _lines() -> list[LineCompleted]:
    lines = make_segment("batch_1", 12)
    changes: list[dict[str, Any]] = [
        {},
        {"model": "gpt-4o"},
        {"model": None, "api_key_id": None},
        {"endpoint": "/v1/embeddings", "usage": LineUsage(7, 0, 0, 0, 7)},
        {"cost": LineCost(None, "pricing_missing", "v")},
        {"cost": LineCost(0, None, "v")},
        {"provider": "anthropic"},
        {"timing": LineTiming(COMPLETED, None, COMPLETED - timedelta(hours=2))},
        {"timing": LineTiming(COMPLETED, None, COMPLETED.astimezone(timezone(timedelta(hours=5))))},
    ]
    changed = [msgspec.structs.replace(line, **change) for line, change in zip(lines, changes, strict=False)]
    ended = (LineStatus.FAILED, LineStatus.CANCELLED, LineStatus.EXPIRED)
    return changed + [failed(line, status) for line, status in zip(lines[9:], ended, strict=True)]


async def _told(mongo: Mongo, lines: Sequence[LineCompleted]) -> tuple[Any, Any]:
    """What a tally says of these lines, and what the rows say."""
    rows = [ledger_row(line) for line in lines]
    tally, run = LedgerTally(), _run(lines)
    for start in range(0, len(rows), 5):
        tally.add(rows[start : start + 5])
    await mongo.collection("usage_ledger").insert_missing(rows)
    (read,) = await LedgerStore(mongo).groups([run])
    return tally.groups(), read


async def test_a_tally_says_what_the_rows_say_field_by_field(mongo: Mongo) -> None:
    summed, read = await _told(mongo, _lines())

    assert summed == read
    assert len(read) > 5, "different rows have groups of their own"
    assert [list(group) for group in summed] == [list(group) for group in read], "in the same order"
    assert [str(group["hour"]) for group in summed] == [str(group["hour"]) for group in read]


async def test_a_segment_with_a_tally_is_not_read(mongo: Mongo) -> None:
    lines = _lines()
    run = _run(lines)
    tally = LedgerTally()
    tally.add([ledger_row(line) for line in lines])
    run.tally = tally

    (groups,) = await LedgerStore(mongo).groups([run])

    assert sum(group["lines"] for group in groups) == 12, "though no row of it is there"


async def test_sums_that_no_integer_of_the_server_holds_are_the_servers_own(mongo: Mongo) -> None:
    usage = LineUsage(LARGE, 0, 0, 0, LARGE)
    alike: dict[str, Any] = {"usage": usage, "model": "m", "timing": LineTiming(COMPLETED, None, COMPLETED)}
    lines = [msgspec.structs.replace(line, **alike) for line in make_segment("batch_1", 3)]

    summed, read = await _told(mongo, lines)

    assert summed is None
    assert sum(group["input_tokens"] for group in read) == float(3 * LARGE)
