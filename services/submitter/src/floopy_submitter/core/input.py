"""A shard's input as the provider gets it: read in order, sliced by the line index, never held whole."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from floopy_common.domain.errors import BlobCorrupt
from floopy_common.domain.index import InputEntry, unpack_input
from floopy_common.domain.shard import ShardKind
from floopy_common.providers.anthropic.refusal import Refused
from floopy_common.providers.openai.request import TRANSLATOR_VERSION, upstream_line
from floopy_common.providers.port import AttemptInput
from floopy_submitter.core.kept import KeptInputs
from floopy_submitter.core.translator import Bodies, Translators
from floopy_submitter.ports import Document, InputReader, PlannedIndex

CHUNK = 256 * 1024
"""What is handed to the socket at once."""
SPAN = 1024 * 1024
"""Input read and decoded at once: some 20 ms of the event loop."""
ANTHROPIC = "anthropic"
"""The provider whose lines are translated."""
_ANY_NONCE = "0123456789"
"""All nonces have the same length."""
GAP = 64 * 1024
"""Bytes of other shards' lines worth reading over rather than asking the database again."""


class _Line(msgspec.Struct, gc=False):
    body: msgspec.Raw


_decode = msgspec.json.Decoder(_Line).decode


class Measured(NamedTuple):
    """A line, its upstream bytes, and the number of its segment."""

    line_no: int
    size: int
    segment: int


class RefusedLine(NamedTuple):
    """A line that is not sent, the number of its segment, and why."""

    line_no: int
    segment: int
    refused: Refused


class Judged(NamedTuple):
    """A shard's lines, in order: those that can be sent, with their segments, and those that cannot."""

    sent: list[tuple[int, int]]
    refused: list[RefusedLine]


class ShardInput:
    """Streams the input of shards; memory is bounded by a span and a segment's index."""

    def __init__(
        self,
        index: PlannedIndex,
        files: InputReader,
        translators: Translators,
        kept: KeptInputs | None = None,
    ) -> None:
        """`kept`: inputs that need not be read."""
        self._index = index
        self._files = files
        self._translators = translators
        self._kept = kept or KeptInputs()

    async def open(self, batch: Document, shard: Document, attempt: Document) -> AttemptInput:
        """The shard's lines in input order, in the form its provider takes, in pieces of about 256 KiB.

        Reading them raises BlobCorrupt when the input is not what was indexed, or as long as was announced.
        """
        form = await self._form(batch, shard)
        size = await self._size(batch, shard, form)
        return AttemptInput(
            name=f"floopy-{shard['batch_id']}-{attempt['id']}.jsonl",
            size=size,
            chunks=self._chunks(batch, shard, form, attempt["nonce"], size),
        )

    async def measure(self, batch: Document, shard: Document) -> list[Measured]:
        """The shard's lines in order; a line's size includes what separates it from the next."""
        form = await self._form(batch, shard)
        async with aclosing(self._lines(batch, shard, form, _ANY_NONCE)) as runs:
            return [
                Measured(line_no, len(line) + len(form.separator), segment)
                async for segment, lines in runs
                for line_no, line in lines
            ]

    async def judge(self, batch: Document, shard: Document) -> Judged:
        """What this translator says of each line of a shard that is translated."""
        translator = await self._translators.of(batch)
        judged = Judged([], [])
        async with aclosing(self._bodies(batch, shard)) as runs:
            async for segment, bodies in runs:
                outcomes = await translator.translate(bodies)
                for (line_no, _), outcome in zip(bodies, outcomes, strict=True):
                    if isinstance(outcome, Refused):
                        judged.refused.append(RefusedLine(line_no, segment, outcome))
                    else:
                        judged.sent.append((line_no, segment))
        return judged

    async def _form(self, batch: Document, shard: Document) -> "_Form":
        if shard["provider"] == ANTHROPIC:
            translator = await self._translators.of(batch)
            return _Form(b",", self._translators.version, translator.lines)
        return _Form(b"", TRANSLATOR_VERSION, _as_they_are(shard["endpoint"]))

    async def _size(self, batch: Document, shard: Document, form: "_Form") -> int:
        """The plan knows it for its own shards; a retry shard's is an estimate, so its lines are measured.

        So are those of a shard that gave up lines which this translator refuses: its size is 0.
        """
        planned = shard["kind"] == ShardKind.PRIMARY.value and shard["bytes"] > 0
        if planned and batch["plan"]["translator_version"] == form.version:
            total = int(shard["bytes"])
        else:
            total = sum(line.size for line in await self.measure(batch, shard))
        return total - len(form.separator)

    async def _chunks(
        self, batch: Document, shard: Document, form: "_Form", nonce: str, announced: int
    ) -> AsyncGenerator[bytes, None]:
        pending: list[bytes] = []
        size = total = 0
        separator = form.separator
        async with aclosing(self._lines(batch, shard, form, nonce)) as runs:
            async for _, lines in runs:
                for _, line in lines:
                    # what separates two lines goes before the second, so that none is left over
                    pending += (separator, line) if size or total else (line,)
                    size += len(line) + (len(separator) if size or total else 0)
                    if size >= CHUNK:
                        yield b"".join(pending)
                        total += size
                        pending, size = [], 0
        if total + size != announced:
            raise BlobCorrupt(f"{shard['_id']} has {total + size} bytes, not the planned {announced}")
        if pending:
            yield b"".join(pending)

    async def _lines(
        self, batch: Document, shard: Document, form: "_Form", nonce: str
    ) -> AsyncGenerator[tuple[int, list[tuple[int, bytes]]], None]:
        """Segments' numbers, and runs of their upstream lines with the lines' numbers."""
        async with aclosing(self._bodies(batch, shard)) as runs:
            async for segment, bodies in runs:
                lines = await form.lines(nonce, bodies)
                yield segment, [(body[0], line) for body, line in zip(bodies, lines, strict=True)]

    async def _bodies(
        self, batch: Document, shard: Document
    ) -> AsyncGenerator[tuple[int, list[tuple[int, msgspec.Raw]]], None]:
        """Segments' numbers, and runs of the bodies of their lines with the lines' numbers."""
        kept = self._kept.of(shard["plan_id"])
        index, files = (self._index, self._files) if kept is None else (kept, kept)
        for segment in shard["segments"]:
            packed = await index.read(
                batch["plan"]["index_blob"], shard["batch_id"], shard["plan_id"], [segment]
            )
            mine = _mine(packed, shard)
            async with aclosing(spans(files, batch["input"]["ranges"], mine)) as runs:
                async for entries, data, base in runs:
                    yield segment, [(entry.line_no, body_of(data, base, entry)) for entry in entries]


@dataclass(frozen=True)
class _Form:
    """How a provider takes lines: made by `lines`, which `version` names, with a separator between them."""

    separator: bytes
    version: int
    lines: Callable[[str, Bodies], Awaitable[list[bytes]]]


def _as_they_are(url: str) -> Callable[[str, Bodies], Awaitable[list[bytes]]]:
    async def lines(nonce: str, bodies: Bodies) -> list[bytes]:
        return [upstream_line(nonce, line_no, url, body) for line_no, body in bodies]

    return lines


async def spans(
    files: InputReader, ranges: Sequence[dict[str, Any]], entries: Iterator[InputEntry]
) -> AsyncGenerator[tuple[list[InputEntry], memoryview, int], None]:
    """Runs of entries, the bytes that hold them, and where in the file those begin."""
    for run in _runs(entries):
        start = run[0].offset
        length = run[-1].offset + run[-1].length - start
        async with aclosing(files.read_ranges(ranges, start, length)) as pieces:
            data = b"".join([piece async for piece in pieces])
        if len(data) != length:
            raise BlobCorrupt(f"the input ends before line {run[-1].line_no}")
        yield run, memoryview(data), start


def body_of(data: memoryview, base: int, entry: InputEntry) -> msgspec.Raw:
    """The request's body as the user wrote it."""
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
