"""Cutting a batch: segments over all its lines, shards over the lines of each group."""

from collections.abc import Sequence
from dataclasses import dataclass, field

OPENAI_MAX_INPUTS = 50_000
"""Texts to embed in one batch; a line may hold many."""

_SPARED = 10
"""A shard may leave one part in this many of its room unused to end where a segment ends."""


@dataclass(frozen=True)
class SegmentLimits:
    """`max_bytes` bounds the stretch of the file a segment covers, gaps included; a longer line is alone."""

    max_lines: int
    max_bytes: int


@dataclass(frozen=True)
class ShardLimits:
    """`max_bytes` counts what is uploaded; `max_inputs` counts texts to embed. A longer line stands alone."""

    max_lines: int
    max_bytes: int
    max_inputs: int = OPENAI_MAX_INPUTS

    def within(self, other: "ShardLimits") -> "ShardLimits":
        """These limits, but none above the other ones."""
        return ShardLimits(
            min(self.max_lines, other.max_lines),
            min(self.max_bytes, other.max_bytes),
            min(self.max_inputs, other.max_inputs),
        )


OPENAI_LIMITS = ShardLimits(50_000, 200_000_000, OPENAI_MAX_INPUTS)


@dataclass
class Segment:
    """Lines `first_line` to `last_line`: the index entries from `index_from` up to `index_to` (exclusive).

    `bytes` is the stretch of the file that holds them.
    """

    no: int
    first_line: int
    last_line: int
    lines: int
    bytes: int
    index_from: int

    @property
    def index_to(self) -> int:
        return self.index_from + self.lines


@dataclass
class Shard:
    """Consecutive lines of one group; lines of other groups may lie between. `bytes` is what is uploaded."""

    group: int
    first_line: int
    last_line: int
    lines: int = 0
    bytes: int = 0
    inputs: int = 0
    segments: list[int] = field(default_factory=list)
    left_out: Sequence[int] = ()
    """Lines of the group between the first and the last that are not the shard's, sorted."""

    @property
    def ranges(self) -> list[list[int]]:
        """Inclusive ranges of line numbers; the shard's lines are those of its group in them."""
        start, ranges = self.first_line, []
        for line_no in self.left_out:
            if start < line_no:
                ranges.append([start, line_no - 1])
            start = line_no + 1
        return [*ranges, [start, self.last_line]]

    def fits(self, size: int, inputs: int, limits: ShardLimits) -> bool:
        return (
            self.lines < limits.max_lines
            and self.bytes + size <= limits.max_bytes
            and self.inputs + inputs <= limits.max_inputs
        )

    def take(self, line_no: int, size: int, inputs: int, segment: int) -> None:
        self.last_line = line_no
        self.lines += 1
        self.bytes += size
        self.inputs += inputs
        if not self.segments or self.segments[-1] != segment:
            self.segments.append(segment)


class Cutter:
    """Takes the lines of a batch in order; `finish` gives the whole cut."""

    def __init__(self, segment: SegmentLimits, shard: ShardLimits) -> None:
        self._segment_limits = segment
        self._segments: list[Segment] = []
        self._segment_start = 0
        self._shards = ShardCutter(shard)
        self.lines = 0

    def add(self, line_no: int, offset: int, length: int, group: int, size: int, inputs: int = 1) -> None:
        """A line of `length` bytes at `offset`; `size` bytes go to the provider, with `inputs` to embed."""
        number = self._add_to_segment(line_no, offset, length)
        self._shards.add(line_no, group, size, inputs, number)
        self.lines += 1

    def _add_to_segment(self, line_no: int, offset: int, length: int) -> int:
        """The number of the segment the line went to."""
        limits = self._segment_limits
        if self._segments:
            last = self._segments[-1]
            span = offset + length - self._segment_start
            if last.lines < limits.max_lines and span <= limits.max_bytes:
                last.last_line = line_no
                last.lines += 1
                last.bytes = span
                return last.no
        self._segment_start = offset
        self._segments.append(Segment(len(self._segments), line_no, line_no, 1, length, self.lines))
        return len(self._segments) - 1

    def finish(self) -> tuple[list[Segment], list[Shard]]:
        """Segments in order; shards in the order of their first lines."""
        return self._segments, self._shards.finish()


class ShardCutter:
    """Takes the lines that are to be sent, in order."""

    def __init__(self, limits: ShardLimits) -> None:
        self._limits = limits
        self._done: list[Shard] = []
        self._open: dict[int, _OpenShard] = {}

    def add(self, line_no: int, group: int, size: int, inputs: int, segment: int) -> None:
        """A line of `size` upstream bytes that lies in the segment of that number."""
        shard = self._open.get(group)
        if shard is None:
            shard = self._open[group] = _OpenShard(group, line_no)
        shard.add(line_no, size, inputs, segment, self._limits, self._done)

    def finish(self) -> list[Shard]:
        """In the order of their first lines."""
        shards = [*self._done, *(shard.rest() for shard in self._open.values())]
        return sorted(shards, key=lambda shard: shard.first_line)


class _OpenShard:
    """The shard of a group that still takes lines, in two parts: up to the last segment's end, and behind."""

    def __init__(self, group: int, line_no: int) -> None:
        self._shard = Shard(group, line_no, line_no)
        self._mark: _Mark | None = None

    def add(
        self, line_no: int, size: int, inputs: int, segment: int, limits: ShardLimits, done: list[Shard]
    ) -> None:
        """Take the line; shards it no longer fits into are closed and join `done`."""
        while self._shard.lines and not self._shard.fits(size, inputs, limits):
            done.append(self._close(line_no, segment, limits))
        shard = self._shard
        if shard.segments and shard.segments[-1] != segment:
            self._mark = _Mark(shard.last_line, line_no, shard.lines, shard.bytes, shard.inputs)
        shard.take(line_no, size, inputs, segment)

    def rest(self) -> Shard:
        """The shard as it is."""
        return self._shard

    def _close(self, line_no: int, segment: int, limits: ShardLimits) -> Shard:
        """End the shard at the last segment's end where that wastes little, else right here."""
        full, mark = self._shard, self._mark
        self._mark = None
        if mark is None or full.segments[-1] != segment or not mark.spares(full, limits):
            self._shard = Shard(full.group, line_no, line_no)
            return full
        self._shard = Shard(
            full.group,
            mark.first_behind,
            full.last_line,
            full.lines - mark.lines,
            full.bytes - mark.bytes,
            full.inputs - mark.inputs,
            full.segments[-1:],
        )
        return Shard(
            full.group,
            full.first_line,
            mark.last_line,
            mark.lines,
            mark.bytes,
            mark.inputs,
            full.segments[:-1],
        )


@dataclass(frozen=True)
class _Mark:
    """Where an open shard stood when it met its newest segment."""

    last_line: int
    first_behind: int
    lines: int
    bytes: int
    inputs: int

    def spares(self, full: Shard, limits: ShardLimits) -> bool:
        """What lies behind the mark is a small part of a shard."""
        return (
            (full.lines - self.lines) * _SPARED <= limits.max_lines
            and (full.bytes - self.bytes) * _SPARED <= limits.max_bytes
            and (full.inputs - self.inputs) * _SPARED <= limits.max_inputs
        )
