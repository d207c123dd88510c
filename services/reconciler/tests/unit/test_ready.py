"""What a process has offered to its own writer comes in turn between batches, small segments apart."""

import pytest

from floopy_reconciler.core.ready import ReadySegments, is_small


def segments(batch: str, count: int, lines: int = 25, size: int = 1_000) -> list[dict[str, object]]:
    return [{"_id": f"{batch}:{no}", "no": no, "lines": lines, "bytes": size} for no in range(count)]


def test_batches_take_turns_and_each_comes_in_the_order_of_its_offering() -> None:
    ready = ReadySegments()
    ready.offer("a", segments("a", 3))
    ready.offer("b", segments("b", 1))

    first = ready.take(2, small=True)
    ready.offer("c", segments("c", 1))

    assert first == [("a", "a:0"), ("b", "b:0")]
    assert ready.take(9, small=True) == [("a", "a:1"), ("c", "c:0"), ("a", "a:2")]
    assert ready.take(9, small=True) == []


def test_nothing_is_taken_where_there_is_no_room() -> None:
    ready = ReadySegments()
    ready.offer("a", segments("a", 1))

    assert ready.take(0, small=True) == []
    assert ready.take(1, small=True) == [("a", "a:0")]


@pytest.mark.parametrize(
    ("lines", "size", "small"), [(100, 262_144, True), (101, 10, False), (1, 262_145, False)]
)
def test_large_segments_do_not_come_with_small_ones(lines: int, size: int, small: bool) -> None:
    ready = ReadySegments()
    ready.offer("a", segments("a", 1, lines, size))

    assert is_small({"lines": lines, "bytes": size}) is small
    assert ready.take(1, small=not small) == []
    assert ready.take(1, small=small) == [("a", "a:0")]
