"""One pass over a batch's input: bytes in, index rows out, and at the end either faults or a cut."""

from collections.abc import Iterable

from floopy_common.domain.index import pack_input
from floopy_common.openai.jsonl import Block, LineSplitter
from floopy_common.providers.openai.request import upstream_length
from floopy_submitter.core.cutting import Cutter, Segment, SegmentLimits, Shard, ShardLimits
from floopy_submitter.core.faults import Fault, empty_file
from floopy_submitter.core.validation import LineCheck


class InputScan:
    """Feed it the file from its first byte to its last; memory grows by a hundred bytes a line."""

    def __init__(
        self, endpoint: str, segment: SegmentLimits, shard: ShardLimits, *, mixed_models: bool = False
    ) -> None:
        self._endpoint = endpoint
        self._splitter = LineSplitter()
        self._check = LineCheck(endpoint, mixed_models=mixed_models)
        self._cutter = Cutter(segment, shard)

    @property
    def lines(self) -> int:
        """Requests so far."""
        return self._cutter.lines

    @property
    def models(self) -> list[str]:
        """The model of each group."""
        return list(self._check.models)

    @property
    def faults(self) -> list[Fault]:
        """In the order of their lines."""
        return self._check.faults

    @property
    def is_hopeless(self) -> bool:
        """There are faults enough; the rest need not be read."""
        return self._check.is_hopeless

    def feed(self, piece: bytes) -> bytes:
        """The packed index rows of the lines that end in this piece; none once there was a fault."""
        return self._take(self._splitter.feed(piece))

    def finish(self) -> bytes:
        """The rest, after the last piece."""
        rows = b"" if self.is_hopeless else self._take(self._splitter.finish())
        if not self.lines and not self.faults:
            self.faults.append(empty_file())
        return rows

    def cut(self) -> tuple[list[Segment], list[Shard]]:
        """Segments and shards of the whole input."""
        return self._cutter.finish()

    def _take(self, blocks: Iterable[Block]) -> bytes:
        rows = []
        for block in blocks:
            for line_no, offset, length, group, body_length, inputs in self._check.check(block):
                size = upstream_length(line_no, self._endpoint, body_length)
                self._cutter.add(line_no, offset, length, group, size, inputs)
                rows.append((line_no, offset, length, group))
            if self.is_hopeless:
                break
        return b"" if self.faults else pack_input(rows)
