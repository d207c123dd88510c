"""Which lines a shard has when others of its group are never sent."""

from hypothesis import given
from hypothesis import strategies as st

from floopy_common.providers.anthropic.refusal import unsupported_value
from floopy_submitter.core.cutting import ShardCutter, ShardLimits
from floopy_submitter.core.translation import _leave_out
from floopy_submitter.core.unsent import Unsent, left_out

REFUSED = unsupported_value("n", "is not one.").refused


class Written:
    """Takes what a blob writer would."""

    def __init__(self) -> None:
        self.content = b""

    @property
    def blob(self) -> "Written":
        return self

    id = "blob_test"

    async def write(self, data: bytes) -> None:
        self.content += data


def lines_in(ranges: list[list[int]], of_group: list[int]) -> list[int]:
    return [line for line in of_group if any(first <= line <= last for first, last in ranges)]


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=60))
async def test_every_line_is_in_exactly_one_shard(lines: list[tuple[int, bool]]) -> None:
    """Each line has a group, and is sent or not; one segment holds seven lines."""
    written = Written()

    async def open_writer() -> Written:
        return written

    cutter, unsent = ShardCutter(ShardLimits(5, 10_000)), Unsent(open_writer)
    by_group: dict[int, list[int]] = {}
    for number, (group, sent) in enumerate(lines, start=1):
        by_group.setdefault(group, []).append(number)
        if sent:
            unsent.sent(number, group)
            cutter.add(number, group, 10, 1, number // 7)
        else:
            await unsent.refuse(number, group, number // 7, REFUSED)
    shards = cutter.finish()
    _leave_out(shards, unsent.shards())

    found = [(part.group, lines_in(part.ranges, by_group[part.group]), part) for part in shards]
    refused = [(part.group, lines_in(part.ranges, by_group[part.group]), part) for part in unsent.shards()]

    expected = {number for number, (_, sent) in enumerate(lines, start=1) if sent}
    assert sorted(line for _, mine, _ in found for line in mine) == sorted(expected)
    assert all(len(mine) == part.lines for _, mine, part in found)
    assert all(mine == part.lines for _, mine, part in refused)
    assert all(part.segments == sorted({line // 7 for line in mine}) for _, mine, part in [*found, *refused])
    assert sum(len(part.entries) for _, _, part in refused) == written.content.count(b"\n")
    assert left_out(unsent.shards()) == {
        group: sorted(line for own, mine, _ in refused if own == group for line in mine)
        for group in {own for own, _, _ in refused}
    }
    assert (unsent.answers is None) == (written.content == b"")
