"""Who reads quickly is read ahead for, and only then."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from floopy_common.stores.read_ahead import (
    QUICK_BATCH,
    QUICK_BYTES,
    READ_BATCH,
    UNTOLD_BYTES,
    Pace,
    QuickSeats,
    in_batches,
    pace_among,
)

PIECE = 256 * 1024


def read(pace: Pace, size: int, rate: float) -> None:
    """As a reader does who takes `rate` bytes a second."""
    for _ in range(size // PIECE):
        pace.taken(PIECE, PIECE / rate)


def test_a_reader_is_quick_once_more_was_taken_than_sockets_hold() -> None:
    pace = Pace(seats=QuickSeats())

    read(pace, UNTOLD_BYTES - PIECE, 10 * QUICK_BYTES)
    assert (pace.quick, pace.batch_bytes) == (False, READ_BATCH)
    read(pace, PIECE, 10 * QUICK_BYTES)
    assert (pace.quick, pace.batch_bytes) == (True, QUICK_BATCH)


def test_a_pause_makes_a_quick_reader_slow_until_it_has_shown_itself_again() -> None:
    pace = Pace(seats=QuickSeats())
    read(pace, UNTOLD_BYTES, 10 * QUICK_BYTES)

    pace.taken(PIECE, 1.0)

    assert not pace.quick
    read(pace, UNTOLD_BYTES - PIECE, 10 * QUICK_BYTES)
    assert not pace.quick
    read(pace, QUICK_BATCH, 10 * QUICK_BYTES)
    assert pace.quick


def test_a_slow_reader_stays_slow_whatever_the_sockets_took_first() -> None:
    pace = Pace(seats=QuickSeats())

    for _ in range(10):
        read(pace, UNTOLD_BYTES // 2, 100 * QUICK_BYTES)
        read(pace, UNTOLD_BYTES // 2, QUICK_BYTES / 16)
        assert not pace.quick


def test_seats_are_few_and_free_again_when_their_reader_is_slow_or_done() -> None:
    seats = QuickSeats(1)
    with pace_among(seats) as first, pace_among(seats) as second:
        read(first, UNTOLD_BYTES, 10 * QUICK_BYTES)
        read(second, UNTOLD_BYTES, 10 * QUICK_BYTES)
        assert (first.quick, second.quick) == (True, False)

        first.taken(PIECE, 1.0)
        read(second, QUICK_BATCH, 10 * QUICK_BYTES)
        assert (first.quick, second.quick) == (False, True)
    assert seats.take()
    assert not seats.take()


def test_without_seats_nobody_is_quick() -> None:
    with pace_among(None, 17) as pace:
        read(pace, 2 * UNTOLD_BYTES, 10 * QUICK_BYTES)
        assert (pace.quick, pace.batch_bytes) == (False, 17)


class Documents:
    """Numbers from a database that counts how many have been fetched."""

    def __init__(self, count: int, failing_at: int | None = None) -> None:
        self.fetched = 0
        self.closed = False
        self._count = count
        self._failing_at = failing_at

    async def find(self) -> AsyncGenerator[int, None]:
        try:
            for number in range(self._count):
                await asyncio.to_thread(int)  # as a cursor's fetches are
                if number == self._failing_at:
                    raise ConnectionError("gone")
                self.fetched += 1
                yield number
        finally:
            self.closed = True


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize(("count", "batches"), [(0, []), (4, [[0, 1], [2, 3]]), (5, [[0, 1], [2, 3], [4]])])
async def test_batches_are_all_there_in_order(count: int, batches: list[list[int]], ahead: bool) -> None:
    documents = Documents(count)

    assert [batch async for batch in in_batches(documents.find(), 2, ahead=ahead)] == batches
    assert documents.closed


@pytest.mark.parametrize(("ahead", "fetched"), [(False, 2), (True, 4)])
async def test_one_batch_is_fetched_ahead_and_no_more(ahead: bool, fetched: int) -> None:
    documents = Documents(100)
    batches = in_batches(documents.find(), 2, ahead=ahead)

    assert await anext(batches) == [0, 1]
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)
    assert documents.fetched == fetched

    await batches.aclose()
    assert documents.closed


async def test_what_fails_ahead_is_raised_behind_what_came_before_it() -> None:
    documents = Documents(10, failing_at=3)
    batches = in_batches(documents.find(), 2, ahead=True)

    assert await anext(batches) == [0, 1]
    with pytest.raises(ConnectionError):
        await anext(batches)
    assert documents.closed


async def test_who_leaves_early_does_not_hear_of_what_failed_ahead() -> None:
    documents = Documents(10, failing_at=3)
    batches = in_batches(documents.find(), 2, ahead=True)
    assert await anext(batches) == [0, 1]

    await batches.aclose()

    assert (documents.fetched, documents.closed) == (3, True)


async def test_a_reader_that_is_cancelled_while_it_waits_cancels_no_fetch() -> None:
    reading, fetching, fetched = asyncio.Event(), asyncio.Event(), asyncio.Event()
    ends: list[str] = []

    async def documents() -> AsyncGenerator[int, None]:
        yield 1
        fetching.set()
        try:
            await fetched.wait()
            ends.append("fetched")
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        yield 2

    async def read() -> None:
        async for _ in in_batches(documents(), 1, ahead=True):
            reading.set()

    reader = asyncio.create_task(read())
    await fetching.wait()
    await reading.wait()
    reader.cancel()
    fetched.set()
    await asyncio.gather(reader, return_exceptions=True)

    assert (ends, reader.cancelled()) == (["fetched"], True)
