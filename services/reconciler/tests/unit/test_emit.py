"""Sending a segment's events, and leaving a broker alone that does not answer."""

from collections.abc import Sequence

import pytest

from floopy_common.domain.errors import Transient
from floopy_common.domain.segment import partition_of
from floopy_reconciler.core.emit import Emitter, Gate, bundled
from floopy_reconciler.core.render import Piece

Record = tuple[bytes, bytes]


class Log:
    """A partition in memory: its offsets are positions in a list."""

    def __init__(self, foreign: int = 0) -> None:
        self.records: list[Record] = [(b"foreign", b"")] * foreign
        self.calls: list[tuple[int, int]] = []

    async def send_batch(self, topic: str, partition: int, records: Sequence[Record]) -> tuple[int, int]:
        assert topic == "batch.line.completed"
        first = len(self.records)
        self.records += records
        self.calls.append((partition, len(records)))
        return first, len(self.records) - 1


def records(count: int) -> list[Record]:
    return [(b"%d" % n, b"value") for n in range(count)]


@pytest.mark.parametrize("count", [1, 2, 999, 5_000])
async def test_all_events_go_out_in_order_and_their_place_is_known(count: int) -> None:
    log, hits = Log(foreign=3), list[str]()
    emitter = Emitter(producer=log, partitions=4, hit=hits.append)

    emission = await emitter.emit("batch_1", 6, [records(count)])

    assert log.records[3:] == records(count)
    assert (emission.first_offset, emission.last_offset) == (3, 2 + count)
    assert (
        {partition for partition, _ in log.calls} == {emission.partition} == {partition_of("batch_1", 6, 4)}
    )
    assert hits == ["segment.after_first_send", "segment.after_send"]


async def test_some_events_leave_before_the_rest() -> None:
    log = Log()
    await Emitter(producer=log, partitions=1, hit=lambda _: None).emit("batch_1", 0, [records(3_000)])
    assert [count for _, count in log.calls] == [500, 2_500]


@pytest.mark.parametrize(("count", "sent"), [(1, [1]), (100, [100]), (101, [51, 50])])
async def test_few_events_leave_at_once(count: int, sent: list[int]) -> None:
    log = Log()
    await Emitter(producer=log, partitions=1, hit=lambda _: None).emit("batch_1", 0, [records(count)])
    assert [size for _, size in log.calls] == sent


async def test_a_failed_send_is_passed_on() -> None:
    class Away:
        async def send_batch(self, *_: object) -> tuple[int, int]:
            raise Transient("away")

    with pytest.raises(Transient):
        await Emitter(producer=Away(), partitions=1, hit=lambda _: None).emit("b", 0, [records(2)])


def test_pieces_are_bundled_without_losing_any() -> None:
    pieces = [Piece([], [], [(b"k", b"x" * 300_000)] * 2) for _ in range(5)]
    bundles = list(bundled(pieces))
    assert [len(bundle) for bundle in bundles] == [4, 4, 2]


def make_gate(at: list[float]) -> Gate:
    return Gate(1.0, 4.0, lambda: at[0])


def test_a_gate_is_open_until_a_send_fails() -> None:
    gate = make_gate([0.0])
    assert gate.enter()
    assert gate.enter()
    gate.succeeded()
    assert gate.is_open


def test_after_a_failure_one_at_a_time_tries_later_and_later() -> None:
    at = [0.0]
    gate = make_gate(at)
    assert gate.enter()
    gate.failed()

    assert not gate.enter()
    at[0] = 1.0
    assert gate.enter()
    assert not gate.enter()
    gate.failed()
    at[0] = 2.5
    assert not gate.enter()
    at[0] = 3.0
    assert gate.enter()
    gate.succeeded()
    assert gate.enter()
    assert gate.enter()


def test_sends_that_fail_together_are_one_failure() -> None:
    at = [0.0]
    gate = make_gate(at)
    for _ in range(5):
        assert gate.enter()
    for _ in range(5):
        gate.failed()
    at[0] = 1.0
    assert gate.is_open


def test_the_pause_is_bounded() -> None:
    at = [0.0]
    gate = make_gate(at)
    for _ in range(10):
        assert gate.enter()
        gate.failed()
        at[0] += gate.wait
    assert gate.wait <= 4.0


def test_who_leaves_without_an_answer_lets_the_next_one_try() -> None:
    at = [0.0]
    gate = make_gate(at)
    gate.enter()
    gate.failed()
    at[0] = 1.0
    assert gate.enter()
    gate.left()
    assert gate.enter()
