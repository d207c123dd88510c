"""How a delivery is taken: rows, events and receipts overlap as far as they may, and no further."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from floopy_sinks.lines import make_segment

from floopy_common.chassis.consumer import LineRecord
from floopy_common.chassis.producer import NotSent
from floopy_common.events.lines import LineCompleted
from floopy_common.stores.confirming import Wanted
from floopy_feedback.handlers import lines
from floopy_feedback.handlers.lines import LineScorer


class Confirming:
    """Stores everything, one row at a time."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.two_are_stored = asyncio.Event()
        self.confirmed = False

    async def wanted(self, runs: Any) -> list[Wanted]:
        return [Wanted(record, parked=False) for run in runs for record in run.records.values()]

    async def store(self, rows: Sequence[tuple[Wanted, dict[str, Any]]]) -> set[str]:
        self.stored += [row["_id"] for _, row in rows]
        if len(self.stored) == 2:
            self.two_are_stored.set()
        return {row["_id"] for _, row in rows}

    async def confirm(self, runs: Any) -> None:
        self.confirmed = True


class Maker:
    async def rows(self, made: Sequence[LineCompleted]) -> AsyncGenerator[list[dict[str, Any]], None]:
        for line in made:
            yield [{"_id": line.line_id, "status": "scored", "checks": {}}]


class Events:
    """Takes events, the first of them only once two rows are stored."""

    def __init__(self, confirming: Confirming, *, refused: bytes = b"") -> None:
        self.sent: list[bytes] = []
        self._confirming = confirming
        self._refused = refused

    async def send_batch(
        self, topic: str, partition: int, records: Sequence[tuple[bytes, bytes]]
    ) -> tuple[int, int]:
        await self._confirming.two_are_stored.wait()
        if records[0][0] == self._refused:
            raise NotSent("away")
        assert not self._confirming.confirmed
        self.sent += [key for key, _ in records]
        return 0, 0


class Nothing:
    async def rows(self, line_ids: Any) -> list[dict[str, Any]]:
        assert not line_ids
        return []


@pytest.fixture
def confirming(monkeypatch: pytest.MonkeyPatch) -> Confirming:
    monkeypatch.setattr(lines, "ROWS", 1)
    monkeypatch.setattr(lines, "scored_event", lambda row: b"{}")
    return Confirming()


def make_scorer(confirming: Any, events: Any) -> LineScorer:
    maker: Any = Maker()
    return LineScorer(confirming=confirming, make=maker, stored=Nothing(), sender=events, hit=lambda _: None)


def make_records() -> list[LineRecord]:
    record: Any = SimpleNamespace(partition=0)
    return [LineRecord(line, record) for line in make_segment("batch_1", 3)]


async def test_rows_are_stored_while_the_events_of_those_before_are_sent(confirming: Confirming) -> None:
    events = Events(confirming)

    await make_scorer(confirming, events).take(make_records())

    assert sorted(events.sent) == [f"batch_1:{number:09d}".encode() for number in (1, 2, 3)]
    assert confirming.confirmed


async def test_nothing_is_confirmed_while_an_event_is_not_sent(confirming: Confirming) -> None:
    events = Events(confirming, refused=b"batch_1:000000001")

    with pytest.raises(NotSent):
        await make_scorer(confirming, events).take(make_records())

    assert not confirming.confirmed
