"""The line plane: one pass over a segment in input order gives its parts' bytes and its line events.

Everything here follows from the batch, the segment's manifest and stored bytes, so a repeat gives the same.
"""

from binascii import hexlify
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from mmap import mmap
from operator import add
from typing import NamedTuple

import msgspec

from floopy_common.domain.ids import line_id
from floopy_common.domain.index import InputEntry, ResultEntry
from floopy_common.domain.line import LineAnswer, LineStatus
from floopy_reconciler.core.line_events import Facts, Line, LineEvents, Place
from floopy_reconciler.core.outcomes import (
    Outcome,
    answered,
    has_answer,
    has_bytes,
    never_ran,
    price_of,
    unanswered,
)
from floopy_reconciler.core.questions import read_question
from floopy_reconciler.core.sources import Answers, Choice, choose
from floopy_reconciler.ports import Archived, Document, Record, ResultFormat

RENDERER_VERSION = 1
"""Kept in manifests; a change of the bytes that the same input gives raises it."""

_PIECE_LINES = 100
_PIECE_BYTES = 256 * 1024
"""A piece is a millisecond or two of work: the event loop, and so all that is sent, waits for it."""
_SCATTERED = 2
"""Times the bytes that are wanted: results further apart are not worth reading what lies between."""
_TAIL = b'},"error":null}\n'
_SUCCEEDED = LineStatus.SUCCEEDED
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Material:
    """Stored bytes of one segment: its lines, the input from the first of them on, and each source's archive.

    `archives` has each source's output and error file, so a result entry's `source` picks the right one.
    """

    lines: Sequence[InputEntry]
    data: bytes | mmap
    answers: Sequence[Answers]
    archives: Sequence[tuple[Archived, Archived]]
    formats: Sequence[ResultFormat]

    def choices(self, sources: Sequence[Document]) -> list[Choice]:
        def ran_not(source: int, entry: ResultEntry) -> bool:
            return has_answer(Choice(source, entry)) and never_ran(self._verdict(source, entry))

        return choose(self.lines, sources, self.answers, ran_not)

    def _verdict(self, source: int, entry: ResultEntry) -> LineAnswer:
        """Raises Invalid when the archive does not hold what its index says."""
        raw = self.archives[source][entry.source].read(entry.offset, entry.length)
        return self.formats[source].parse_result(raw)

    def results(self, choices: Sequence[Choice]) -> list[bytes]:
        """What the archives hold for each; nothing where there is no answer.

        Neighbours are read at once, what lies scattered one by one: never much more than is asked for.
        """
        found = [b""] * len(choices)
        files: dict[tuple[int, int], tuple[list[int], list[ResultEntry]]] = {}
        for at, choice in enumerate(choices):
            entry = choice.entry
            if entry is not None and has_bytes(entry):
                places, entries = files.setdefault((choice.source, entry.source), ([], []))
                places.append(at)
                entries.append(entry)
        for (source, file), (places, entries) in files.items():
            for at, raw in zip(places, _read_entries(self.archives[source][file], entries), strict=True):
                found[at] = raw
        return found


def _read_entries(archive: Archived, entries: Sequence[ResultEntry]) -> Iterator[bytes]:
    lengths = [length for _, _, length, _, _ in entries]
    offsets = [offset for _, offset, _, _, _ in entries]
    start, stop = min(offsets), max(map(add, offsets, lengths))
    if stop - start > _SCATTERED * sum(lengths):
        return map(archive.read, offsets, lengths)
    block = archive.read(start, stop - start)
    return (block[at - start : at - start + length] for at, length in zip(offsets, lengths, strict=True))


class PartIds(NamedTuple):
    """Blobs of the segment's parts."""

    output: str
    error: str


class Piece(NamedTuple):
    """What is to be added to the two parts, and the events of the lines in them."""

    output: list[bytes]
    error: list[bytes]
    events: list[Record]


@dataclass(slots=True)
class Tally:
    """What the lines add up to."""

    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    """What the translation of answers had to say, and of how many lines."""

    @property
    def usage(self) -> dict[str, int]:
        return {
            "input_tokens": self.input_tokens,
            "cached_tokens": self.cached_tokens,
            "cache_write_tokens": self.cache_write_tokens,
            "output_tokens": self.output_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "total_tokens": self.input_tokens + self.output_tokens,
        }

    def add(self, outcome: Outcome) -> None:
        if outcome.status is _SUCCEEDED:
            self.completed += 1
        else:
            self.failed += 1
        usage = outcome.usage
        if usage is not None:
            self.input_tokens += usage.input_tokens
            self.cached_tokens += usage.cached_tokens
            self.cache_write_tokens += usage.cache_write_tokens
            self.output_tokens += usage.output_tokens
            self.reasoning_tokens += usage.reasoning_tokens


class Renderer:
    """Renders one segment once; `tally` is complete after the last piece."""

    def __init__(self, facts: Facts, sources: Sequence[Document], material: Material, parts: PartIds) -> None:
        self.tally = Tally()
        self._facts = facts
        self._prefix = line_id(facts.batch_id, 0).encode().removesuffix(b"%09d" % 0)
        self._sources = sources
        self._material = material
        self._parts = parts
        self._events = LineEvents(facts)
        self._ended = [int(timing.completed_at.timestamp()) for timing in facts.timings]
        self._output: list[bytes] = []
        self._error: list[bytes] = []
        self._sizes = {True: 0, False: 0}

    def pieces(self) -> Iterator[Piece]:
        """In input order. Raises Uncovered or Invalid for a segment that cannot be rendered."""
        material = self._material
        base = material.lines[0].offset if material.lines else 0
        choices = material.choices(self._sources)
        for first, stop in _cuts(material.lines, choices):
            lines, chosen = material.lines[first:stop], choices[first:stop]
            records = []
            for entry, choice, result in zip(lines, chosen, material.results(chosen), strict=True):
                start = entry.offset - base
                raw = material.data[start : start + entry.length]
                records.append(self._line(entry, choice, raw, result))
            yield self._cut(records)

    def _cut(self, records: list[Record]) -> Piece:
        piece = Piece(self._output, self._error, records)
        self._output, self._error = [], []
        return piece

    def _line(self, entry: InputEntry, choice: Choice, raw: bytes, result: bytes) -> Record:
        number, at, _, group = entry
        source = choice.source
        question = read_question(number, raw)
        if result:
            answer, notes = self._material.formats[source].parse_answer(
                result, question.body, self._ended[source]
            )
            if notes:
                self.tally.notes.update(notes)
            outcome = answered(answer)
        else:
            outcome = unanswered(number, self._sources[source], choice.entry)
        digits = b"%09d" % number
        identity = self._prefix + digits
        place = self._write(identity, question.spelled, outcome)
        self.tally.add(outcome)
        cost = price_of(outcome, *self._facts.models[group])
        asked_at = at + question.body_at
        line = Line(number, digits, group, source, question, asked_at, outcome, cost, place)
        return identity, self._events.make(line)

    def _write(self, identity: bytes, custom_id: bytes, outcome: Outcome) -> Place | None:
        """Add the line to its part; where its response's body came to lie."""
        succeeded = outcome.status is _SUCCEEDED
        lines = self._output if succeeded else self._error
        public_id = _digest_of(identity)
        body = outcome.body
        if body is None or outcome.status_code is None:
            line = b'{"id":"batch_req_%b","custom_id":%b,"response":null,"error":%b}\n' % (
                public_id,
                custom_id,
                outcome.error,
            )
            lines.append(line)
            self._sizes[succeeded] += len(line)
            return None
        head = b'{"id":"batch_req_%b","custom_id":%b,"response":{"status_code":%d,"request_id":%b,"body":' % (
            public_id,
            custom_id,
            outcome.status_code,
            _request_id(identity, outcome.request_id),
        )
        lines += (head, body, _TAIL)
        offset = self._sizes[succeeded] + len(head)
        self._sizes[succeeded] = offset + len(body) + len(_TAIL)
        return Place(self._parts.output if succeeded else self._parts.error, offset, body)


def _cuts(lines: Sequence[InputEntry], choices: Sequence[Choice]) -> Iterator[tuple[int, int]]:
    """Where each piece begins and ends: by lines and by the bytes of questions and answers."""
    first = size = 0
    for at, (line, choice) in enumerate(zip(lines, choices, strict=True)):
        length = line.length + (choice.entry.length if choice.entry is not None else 0)
        if at > first and (at - first == _PIECE_LINES or size + length > _PIECE_BYTES):
            yield first, at
            first, size = at, 0
        size += length
    if first < len(lines):
        yield first, len(lines)


def _digest_of(identity: bytes) -> bytes:
    return hexlify(blake2b(identity, digest_size=16).digest())


def _request_id(identity: bytes, said: str | None) -> bytes:
    """The provider's, else one that follows from the line."""
    return _encode(said) if said else b'"%b"' % _digest_of(b"request:" + identity)


def manifest_of(batch: Document, sources: Sequence[Document], written_at: object) -> Mapping[str, object]:
    """All that a repeat has to know beyond stored bytes; the parts are added when they are written."""
    plan = batch["plan"]
    return {
        "sources": list(sources),
        "rates": [{"model": group["model"], "rates": group["rates"]} for group in plan["groups"]],
        "price_version": plan["price_version"],
        "renderer_version": RENDERER_VERSION,
        "ending": batch.get("ending"),
        "written_at": written_at,
    }
