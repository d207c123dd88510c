"""Lines that are never sent: their answers are stored while the batch is planned."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from floopy_common.domain.index import SOURCE_ERROR, pack_result
from floopy_common.providers.anthropic.refusal import Refused
from floopy_common.providers.unsent import unsent_row
from floopy_submitter.ports import Document, IndexWriter

MAX_LINES = 10_000
"""Of one shard that is not sent: its ranges, at most one a line, must fit into a document."""


@dataclass
class UnsentShard:
    """Lines of one group; `entries` are rows of a result index into the blob of all the batch's refusals."""

    group: int
    ranges: list[list[int]] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    entries: list[tuple[int, int, int, int, int]] = field(default_factory=list)

    @property
    def lines(self) -> list[int]:
        return [entry[0] for entry in self.entries]

    def packed(self) -> bytes:
        return pack_result(self.entries)

    def take(self, line_no: int, segment: int, offset: int, length: int, *, adjoining: bool) -> None:
        self.entries.append((line_no, offset, length, SOURCE_ERROR, 0))
        if adjoining and self.ranges:
            self.ranges[-1][1] = line_no
        else:
            self.ranges.append([line_no, line_no])
        if not self.segments or self.segments[-1] != segment:
            self.segments.append(segment)


class Unsent:
    """Takes the refused lines of a batch in order; `open_writer` is called with the first of them."""

    def __init__(self, open_writer: Callable[[], Awaitable[IndexWriter]]) -> None:
        self._open_writer = open_writer
        self._writer: IndexWriter | None = None
        self._length = 0
        self._done: list[UnsentShard] = []
        self._open: dict[int, UnsentShard] = {}
        self._last_sent: dict[int, int] = {}

    @property
    def answers(self) -> Document | None:
        """The blob of all the answers, once it is published; None without any."""
        return None if self._writer is None else {"blob": self._writer.blob.id, "length": self._length}

    def sent(self, line_no: int, group: int) -> None:
        """A line of the group that is not among them."""
        self._last_sent[group] = line_no

    async def refuse(self, line_no: int, group: int, segment: int, refused: Refused) -> None:
        """A line, and why it is not sent."""
        row = unsent_row(refused.status, refused.body)
        if self._writer is None:
            self._writer = await self._open_writer()
        await self._writer.write(row)
        shard = self._open.get(group)
        if shard is None or len(shard.entries) >= MAX_LINES:
            shard = self._open[group] = UnsentShard(group)
            self._done.append(shard)
        previous = shard.entries[-1][0] if shard.entries else line_no
        adjoining = self._last_sent.get(group, 0) < previous
        shard.take(line_no, segment, self._length, len(row) - 1, adjoining=adjoining)
        self._length += len(row)

    def shards(self) -> list[UnsentShard]:
        """In the order of their first lines."""
        return self._done


def left_out(shards: Iterable[UnsentShard]) -> dict[int, list[int]]:
    """By group, the numbers of the lines that are not sent, sorted."""
    found: dict[int, list[int]] = {}
    for shard in shards:
        found.setdefault(shard.group, []).extend(shard.lines)
    return found
