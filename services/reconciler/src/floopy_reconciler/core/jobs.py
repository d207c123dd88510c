"""A segment to be rendered, as one value: here, or packed for a process of our own that does it."""

import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate, chain, pairwise
from mmap import mmap
from typing import Self

import msgspec

from floopy_common.domain.errors import BlobCorrupt, BlobMissing, Invalid
from floopy_common.domain.index import unpack_input, unpack_result
from floopy_common.providers.port import ResultFormat
from floopy_reconciler.core.line_events import Facts
from floopy_reconciler.core.render import Material, PartIds, Piece, Renderer, Tally
from floopy_reconciler.core.sources import Uncovered
from floopy_reconciler.ports import Archived, Document

Take = Callable[[Piece], Awaitable[None]]
"""Gets the pieces in input order, one at a time."""


@dataclass(frozen=True)
class Stored:
    """Stored bytes of one segment, their indexes packed as they are stored.

    `data` is the input from the first line on; of each source there are the results of the segment's lines,
    and its archive's output and error file.
    """

    lines: bytes
    data: bytes | mmap
    results: Sequence[bytes]
    archives: Sequence[tuple[Archived, Archived]]
    formats: Sequence[ResultFormat]

    def material(self) -> Material:
        return Material(
            list(unpack_input(self.lines)),
            self.data,
            [{entry.line_no: entry for entry in unpack_result(packed)} for packed in self.results],
            self.archives,
            self.formats,
        )


@dataclass(frozen=True)
class Job:
    """All that the bytes of a segment's parts and events follow from; `parts` are where they will be."""

    facts: Facts
    sources: Sequence[Document]
    stored: Stored
    parts: PartIds

    def renderer(self) -> Renderer:
        return Renderer(self.facts, self.sources, self.stored.material(), self.parts)


class PackedJob(msgspec.Struct, frozen=True):
    """The same for another process on this machine, in which the long parts are files it can read."""

    facts: Facts
    sources: list[Document]
    parts: PartIds
    lines: bytes
    results: list[bytes]
    data: str
    archives: list[tuple[str | None, str | None]]


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The process has started and can take jobs; its first word."""


class Finished(msgspec.Struct, frozen=True, tag=True):
    """There are no more pieces; what the lines add up to, by its names in `Tally`, and its notes."""

    numbers: dict[str, int]
    notes: dict[str, int]

    @classmethod
    def with_tally(cls, tally: Tally) -> Self:
        numbers = {each.name: getattr(tally, each.name) for each in fields(tally) if each.name != "notes"}
        return cls(numbers, dict(tally.notes))

    @property
    def tally(self) -> Tally:
        return Tally(**self.numbers, notes=Counter(self.notes))


class Failed(msgspec.Struct, frozen=True, tag=True):
    """It cannot be rendered; `kind` is one of `FAILURES`, `UNABLE`, or empty of what nobody expected."""

    kind: str
    message: str


UNABLE = "unable"
"""A file of the job cannot be opened: nothing is wrong with the segment."""
FAILURES: Mapping[str, type[Exception]] = {
    kind.__name__: kind for kind in (Invalid, Uncovered, BlobMissing, BlobCorrupt, LookupError)
}
"""What says that a segment cannot be rendered, by name."""

LastWord = Ready | Finished | Failed
"""What a process says besides pieces."""


def _plain(value: object) -> object:
    """What the database's driver has subclasses of."""
    if isinstance(value, int):
        return int(value)
    raise TypeError(f"a job holds a {type(value).__name__}")


encode_job: Callable[[PackedJob], bytes] = msgspec.msgpack.Encoder(enc_hook=_plain).encode
decode_job: Callable[[bytes | bytearray], PackedJob] = msgspec.msgpack.Decoder(PackedJob).decode
_encode_word = msgspec.msgpack.Encoder().encode
_decode_word: Callable[[memoryview], LastWord] = msgspec.msgpack.Decoder(LastWord).decode

_PIECE, _WORD = b"\0\1"
_SIZES = struct.Struct("<BIII")
"""Of a piece: its kind, the bytes of both parts, its events. The lengths of their keys and values follow."""


def encode_reply(reply: Piece | LastWord) -> bytes:
    """A piece is copied once: it is most of what there is to say."""
    if not isinstance(reply, Piece):
        return bytes([_WORD]) + _encode_word(reply)
    output, error, events = reply
    texts = list(chain.from_iterable(events))
    sizes = _SIZES.pack(_PIECE, sum(map(len, output)), sum(map(len, error)), len(events))
    lengths = struct.pack(f"<{len(texts)}I", *map(len, texts))
    return b"".join((sizes, lengths, *output, *error, *texts))


def decode_reply(message: bytes | bytearray) -> Piece | LastWord:
    """A piece's parts each in one. Raises ValueError for what is no reply."""
    view = memoryview(message)
    if not message or message[0] != _PIECE:
        return _decode_word(view[1:])
    try:
        _, output, error, events = _SIZES.unpack_from(view)
        lengths = struct.unpack_from(f"<{2 * events}I", view, _SIZES.size)
    except struct.error as reason:
        raise ValueError(f"a piece that was cut: {reason}") from reason
    start = _SIZES.size + 4 * len(lengths)
    ends = list(accumulate((output, error, *lengths), initial=start))
    if ends[-1] != len(message):
        raise ValueError(f"a piece of {len(message)} bytes that says it has {ends[-1]}")
    whole_output, whole_error, *texts = [bytes(view[at:end]) for at, end in pairwise(ends)]
    return Piece(
        [whole_output] if output else [],
        [whole_error] if error else [],
        list(zip(texts[::2], texts[1::2], strict=True)),
    )
