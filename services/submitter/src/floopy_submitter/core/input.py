"""A shard's input as the provider gets it: read in order, sliced by the line index, never held whole."""

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from floopy_common.domain.errors import BlobCorrupt
from floopy_common.domain.index import InputEntry, unpack_input
from floopy_common.domain.shard import ShardKind
from floopy_common.providers.openai.request import TRANSLATOR_VERSION, upstream_length, upstream_line
from floopy_submitter.ports import Document, InputReader, PlannedIndex

CHUNK = 256 * 1024
"""What is handed to the socket at once."""
SPAN = 1024 * 1024
"""Input read and decoded at once: some 20 ms of the event loop."""
GAP = 64 * 1024
"""Bytes of other shards' lines worth reading over rather than asking the database again."""


class _Line(msgspec.Struct, gc=False):
    body: msgspec.Raw


_decode = msgspec.json.Decoder(_Line).decode


class ShardInput:
    """Streams the input of shards; memory is bounded by a span and a segment's index."""

    def __init__(self, index: PlannedIndex, files: InputReader) -> None:
        self._index = index
        self._files = files

    async def size(self, batch: Document, shard: Document) -> int:
        """Exact length of what `chunks` yields.

        The plan knows it for its own shards; a retry shard's was only estimated, so its lines are measured.
        """
        planned = shard["kind"] == ShardKind.PRIMARY.value
        if planned and batch["plan"]["translator_version"] == TRANSLATOR_VERSION:
            return int(shard["bytes"])
        total = 0
        url = shard["endpoint"]
        async with aclosing(self._spans(batch, shard)) as spans:
            async for entries, data, base in spans:
                for entry in entries:
                    total += upstream_length(entry.line_no, url, len(_body(data, base, entry)))
        return total

    async def chunks(
        self, batch: Document, shard: Document, nonce: str, announced: int
    ) -> AsyncGenerator[bytes, None]:
        """The upstream lines of the shard in input order, in pieces of about 256 KiB.

        Raises BlobCorrupt when the input is not what was indexed, or not `announced` bytes long.
        """
        url = shard["endpoint"]
        pending: list[bytes] = []
        size = total = 0
        async with aclosing(self._spans(batch, shard)) as spans:
            async for entries, data, base in spans:
                for entry in entries:
                    line = upstream_line(nonce, entry.line_no, url, _body(data, base, entry))
                    pending.append(line)
                    size += len(line)
                    if size >= CHUNK:
                        yield b"".join(pending)
                        total += size
                        pending, size = [], 0
        if total + size != announced:
            raise BlobCorrupt(f"{shard['_id']} has {total + size} bytes, not the planned {announced}")
        if pending:
            yield b"".join(pending)

    async def _spans(
        self, batch: Document, shard: Document
    ) -> AsyncGenerator[tuple[list[InputEntry], memoryview, int], None]:
        """Runs of entries, the bytes that hold them, and where in the file those begin."""
        ranges: Sequence[dict[str, Any]] = batch["input"]["ranges"]
        for segment in shard["segments"]:
            packed = await self._index.read(
                batch["plan"]["index_blob"], shard["batch_id"], shard["plan_id"], [segment]
            )
            for entries in _runs(_mine(packed, shard)):
                start = entries[0].offset
                length = entries[-1].offset + entries[-1].length - start
                async with aclosing(self._files.read_ranges(ranges, start, length)) as pieces:
                    data = b"".join([piece async for piece in pieces])
                if len(data) != length:
                    raise BlobCorrupt(f"the input of {batch['_id']} ends before line {entries[-1].line_no}")
                yield entries, memoryview(data), start


def _body(data: memoryview, base: int, entry: InputEntry) -> msgspec.Raw:
    start = entry.offset - base
    try:
        return _decode(data[start : start + entry.length]).body
    except msgspec.DecodeError as error:
        raise BlobCorrupt(f"line {entry.line_no} is not what was validated: {error}") from error


def _mine(packed: bytes, shard: Document) -> Iterator[InputEntry]:
    """The entries of the shard's group in its line ranges, both sorted."""
    group = shard["group"]
    within = _within(shard["ranges"])
    return (entry for entry in unpack_input(packed) if entry.group == group and within(entry.line_no))


def _within(ranges: Sequence[Sequence[int]]) -> Callable[[int], bool]:
    """Tells for rising line numbers whether a sorted range holds them."""
    at = 0

    def holds(line_no: int) -> bool:
        nonlocal at
        while at < len(ranges) and ranges[at][1] < line_no:
            at += 1
        return at < len(ranges) and ranges[at][0] <= line_no

    return holds


def _runs(entries: Iterator[InputEntry]) -> Iterator[list[InputEntry]]:
    """Neighbouring entries together, up to a span of bytes; a longer line stands alone."""
    run: list[InputEntry] = []
    for entry in entries:
        if run:
            end = run[-1].offset + run[-1].length
            if entry.offset - end > GAP or entry.offset + entry.length - run[0].offset > SPAN:
                yield run
                run = []
        run.append(entry)
    if run:
        yield run
