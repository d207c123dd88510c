"""Which lines belong to a shard, and what is read at once."""

from floopy_common.domain.index import InputEntry, pack_input
from floopy_submitter.core import input as shard_input
from floopy_submitter.core.input import GAP, SPAN


def _entry(line_no: int, offset: int, length: int = 10, group: int = 0) -> InputEntry:
    return InputEntry(line_no, offset, length, group)


def test_only_lines_of_the_group_in_the_ranges_are_the_shards() -> None:
    packed = pack_input([_entry(n, 11 * n, group=n % 2) for n in range(1, 21)])
    shard = {"group": 0, "ranges": [[1, 4], [9, 10], [16, 19]]}

    assert [entry.line_no for entry in shard_input._mine(packed, shard)] == [2, 4, 10, 16, 18]


def test_neighbours_are_read_together_and_what_is_far_apart_is_not() -> None:
    near, far = _entry(2, 10 + GAP), _entry(3, 20 + GAP + GAP + 1)

    runs = list(shard_input._runs(iter([_entry(1, 0), near, far])))

    assert [[entry.line_no for entry in run] for run in runs] == [[1, 2], [3]]


def test_a_run_is_no_longer_than_a_span_unless_one_line_is() -> None:
    entries = [_entry(1, 0, SPAN + 5), _entry(2, SPAN + 6, SPAN // 2), _entry(3, SPAN + 7 + SPAN // 2, SPAN)]

    runs = list(shard_input._runs(iter(entries)))

    assert [[entry.line_no for entry in run] for run in runs] == [[1], [2], [3]]
