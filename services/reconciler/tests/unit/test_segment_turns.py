"""Which segment a worker takes next: what was offered here does not keep it from searching."""

import time
from collections.abc import Collection
from typing import Any

from waiting import eventually

from floopy_common.domain.segment import SegmentState
from floopy_reconciler.core.emit import Gate
from floopy_reconciler.core.pool import Pool
from floopy_reconciler.core.ready import ReadySegments
from floopy_reconciler.core.segments import SegmentPools, SegmentWorker


class Claim:
    def __init__(self, name: str, lines: int) -> None:
        self.segment = {"_id": name, "batch_id": name, "lines": lines, "bytes": 100 * lines}


class Segments:
    """What was offered can be claimed; a search finds what others have offered, as long as there is any."""

    def __init__(self, others: int = 0) -> None:
        self.offered: list[str] = []
        self.found: list[str] = []
        self._others = others

    async def claim_one(self, segment_id: str, states: Collection[SegmentState]) -> Claim | None:
        self.offered.append(segment_id)
        return Claim(segment_id, 5_000)

    async def claim(self, states: Collection[SegmentState], after: str) -> Claim | None:
        if len(self.found) == self._others:
            return None
        self.found.append(f"other:{len(self.found)}")
        return Claim(self.found[-1], 5_000)


class Worker(SegmentWorker):
    async def carry_out(self, claim: Any) -> None:
        """Nothing, in a task of its own."""

    def is_idle(self) -> bool:
        return (self._pools.large.free, self._pools.small.free) == (2, 4)


def worker(segments: Segments, ready: ReadySegments, scan: float) -> Worker:
    unused: dict[str, Any] = dict.fromkeys(
        (
            *("batches", "materials", "parts", "emitter", "renderer"),
            *("changed", "audit", "reports", "now", "hit"),
        )
    )
    pools = SegmentPools(Pool(2, 2, lambda: None), Pool(4, 4, lambda: None))
    return Worker(
        segments=segments,  # type: ignore[arg-type]
        ready=ready,
        pools=pools,
        gate=Gate(1.0, 1.0, time.monotonic),
        monotonic=time.monotonic,
        max_event_bytes=1,
        pause=1.0,
        scan=scan,
        **unused,
    )


async def steps(wanted: Worker, count: int) -> None:
    for _ in range(count):
        await wanted.step()
        await eventually(wanted.is_idle, what="the end of this step's jobs")


def many(count: int) -> ReadySegments:
    ready = ReadySegments()
    ready.offer("large", [{"_id": f"own:{no}", "lines": 5_000, "bytes": 500_000} for no in range(count)])
    return ready


async def test_a_search_has_its_turn_beside_a_large_batch() -> None:
    segments = Segments(others=3)

    await steps(worker(segments, many(200), scan=0.0), 20)

    assert len(segments.found) == 3
    assert len(segments.offered) > 20


async def test_between_two_searches_what_was_offered_comes_first() -> None:
    segments = Segments(others=100)

    await steps(worker(segments, many(20), scan=3_600.0), 5)

    assert len(segments.found) == 2, "one search, as much as there was room for"
    assert len(segments.offered) == 8


async def test_where_nothing_was_offered_a_search_goes_on_while_it_finds_something() -> None:
    segments = Segments(others=9)

    await steps(worker(segments, ReadySegments(), scan=3_600.0), 20)

    assert len(segments.found) == 9
