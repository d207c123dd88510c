"""Reads the bodies of lines: one blob range per side for a whole run of them, not one per line."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, cast

import msgspec

from floopy_common.domain.errors import BlobCorrupt, BlobMissing
from floopy_common.events.lines import Content, LineCompleted
from floopy_feedback.ports import Blobs

MAX_READ: Final = 8 * 1024 * 1024
"""Bytes of one read, and of the longest body that is scored at all."""
MAX_GAP: Final = 64 * 1024
"""Bytes between two bodies that are read along: a megabyte costs about what another round trip does."""

_RUN: Final = 1_000
"""Lines read together: while they are scored the next are read, and the last stored."""
_AHEAD: Final = 16
"""Runs read while another is scored, if they are short: small batches are looked up together."""

Body = bytes | msgspec.Raw


class Exchange(NamedTuple):
    """A line with its bodies, or with the reason why they cannot be had.

    The request is None where nothing in it bears on how the answer is judged.
    """

    line: LineCompleted
    request: Body | None = None
    response: Body = b""
    failure: str | None = None


class _Span:
    """A range of one blob; an empty `blob` stands for bodies that came with their events."""

    __slots__ = ("blob", "start", "stop")

    def __init__(self, content: Content) -> None:
        inline = content.body is not msgspec.UNSET
        self.blob = "" if inline else content.blob
        self.start = content.offset
        self.stop = content.offset + content.length

    def has_room_for(self, content: Content) -> bool:
        """Whether the body belongs into the same read."""
        if content.body is not msgspec.UNSET or not self.blob:
            return content.body is not msgspec.UNSET and not self.blob
        gap = content.offset - self.stop
        stop = content.offset + content.length
        return content.blob == self.blob and 0 <= gap <= MAX_GAP and stop - self.start <= MAX_READ

    def add(self, content: Content) -> None:
        self.stop = content.offset + content.length


class _Run:
    """Lines whose bodies are read together: one range for the requests, one for the responses."""

    __slots__ = ("_alone", "lines", "request", "response")

    def __init__(self, line: LineCompleted) -> None:
        asked, answered = _request(line), _response(line)
        self.lines = [line]
        self.request = None if asked is None else _Span(asked)
        self.response = _Span(answered)
        self._alone = bool(line.request.continued or answered.continued)

    @property
    def size(self) -> int:
        """Bytes to read."""
        return sum(span.stop - span.start for span in (self.request, self.response) if span is not None)

    def add(self, line: LineCompleted) -> bool:
        """Take another line; False when its bodies do not belong here."""
        asked, answered = line.request, _response(line)
        if self._alone or answered.continued or asked.continued or len(self.lines) >= _RUN:
            return False
        if not self.response.has_room_for(answered):
            return False
        if not asked.unconstrained:
            if self.request is None:
                self.request = _Span(asked)
            elif self.request.has_room_for(asked):
                self.request.add(asked)
            else:
                return False
        self.lines.append(line)
        self.response.add(answered)
        return True


async def read_exchanges(
    blobs: Blobs, lines: Iterable[LineCompleted]
) -> AsyncGenerator[list[Exchange], None]:
    """Every line once, in order, those that are read together in one list; the next are read ahead.

    A failure of the database itself raises.
    """
    ahead: deque[tuple[int, asyncio.Task[list[Exchange]]]] = deque()
    try:
        for run in _runs(lines):
            while len(ahead) > _AHEAD or (ahead and run.size + sum(size for size, _ in ahead) > MAX_READ):
                yield await ahead[0][1]
                ahead.popleft()
            ahead.append((run.size, asyncio.create_task(_read_run(blobs, run))))
        while ahead:
            yield await ahead[0][1]
            ahead.popleft()
    finally:
        left = [task for _, task in ahead]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _runs(lines: Iterable[LineCompleted]) -> Iterator[_Run]:
    run: _Run | None = None
    for line in lines:
        if run is not None and run.add(line):
            continue
        if run is not None:
            yield run
        run = _Run(line)
    if run is not None:
        yield run


def _request(line: LineCompleted) -> Content | None:
    """None where the answer is judged without it."""
    return None if line.request.unconstrained else line.request


def _response(line: LineCompleted) -> Content:
    if line.response is None:
        raise ValueError(f"{line.line_id} succeeded without a response")
    return line.response


async def _read_run(blobs: Blobs, run: _Run) -> list[Exchange]:
    if any(_size(one) > MAX_READ for one in (_request(run.lines[0]), _response(run.lines[0]))):
        return [Exchange(run.lines[0], failure="too_large")]
    try:
        requests, responses = await _read_sides(blobs, run)
    except BlobMissing:
        return [Exchange(line, failure="blob_missing") for line in run.lines]
    except BlobCorrupt:
        return await _read_around(blobs, run)
    return list(map(Exchange, run.lines, requests, responses))


async def _read_around(blobs: Blobs, run: _Run) -> list[Exchange]:
    """Halve a run until the damage is alone, so that it costs no line its score but those it hit."""
    if len(run.lines) == 1:
        return [Exchange(run.lines[0], failure="blob_corrupt")]
    middle = len(run.lines) // 2
    exchanges: list[Exchange] = []
    for half in (run.lines[:middle], run.lines[middle:]):
        for part in _runs(half):
            exchanges += await _read_run(blobs, part)
    return exchanges


async def _read_sides(blobs: Blobs, run: _Run) -> tuple[list[Body | None], list[Body]]:
    """Both at the same time; of two failures the one that says nothing about the content is raised."""
    requests, responses = await asyncio.gather(
        _read_requests(blobs, run),
        _read_side(blobs, run.response, [_response(line) for line in run.lines]),
        return_exceptions=True,
    )
    failures = [result for result in (requests, responses) if isinstance(result, BaseException)]
    if failures:
        raise min(failures, key=lambda failure: isinstance(failure, BlobMissing | BlobCorrupt))
    return cast("list[Body | None]", requests), cast("list[Body]", responses)


async def _read_requests(blobs: Blobs, run: _Run) -> list[Body | None]:
    wanted = [asked for line in run.lines if (asked := _request(line)) is not None]
    if run.request is None:
        return [None] * len(run.lines)
    bodies = iter(await _read_side(blobs, run.request, wanted))
    return [None if line.request.unconstrained else next(bodies) for line in run.lines]


async def _read_side(blobs: Blobs, span: _Span, contents: Sequence[Content]) -> list[Body]:
    """One side of a run; BlobMissing or BlobCorrupt."""
    if not span.blob:
        return [_inline(content) for content in contents]
    data = await blobs.read_bytes(span.blob, span.start, span.stop - span.start)
    if contents[0].continued:
        rest = [await blobs.read_bytes(part.blob, part.offset, part.length) for part in contents[0].continued]
        return [b"".join([data, *rest])]
    starts = [content.offset - span.start for content in contents]
    return [data[at : at + content.length] for at, content in zip(starts, contents, strict=True)]


def _inline(content: Content) -> msgspec.Raw:
    if isinstance(content.body, msgspec.Raw):
        return content.body
    raise BlobCorrupt("a body that is neither here nor anywhere")


def _size(content: Content | None) -> int:
    if content is None:
        return 0
    return content.length + sum(part.length for part in content.continued)
