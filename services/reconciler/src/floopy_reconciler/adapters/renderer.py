"""Large segments rendered by a process of our own: Python has one core for all threads of a process.

What this side has to do meanwhile is waiting and copying. The other side keeps nothing: whatever becomes of
it, the segment is rendered once more.
"""

import asyncio
import logging
import os
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from mmap import mmap
from typing import Self, assert_never, cast

from typing_extensions import override

from floopy_reconciler.adapters.render_process import HEADER, PROGRAM
from floopy_reconciler.core.jobs import (
    FAILURES,
    UNABLE,
    Failed,
    Finished,
    Job,
    LastWord,
    PackedJob,
    Ready,
    Take,
    decode_reply,
    encode_job,
)
from floopy_reconciler.core.render import Piece, Tally
from floopy_reconciler.core.rendering import Here
from floopy_reconciler.errors import RendererLost, RendererUnable
from floopy_reconciler.metrics import RENDERERS_STARTED

_log = logging.getLogger(__name__)

_READ_AHEAD = 8 * 1024 * 1024
"""Bytes of a segment's pieces that wait here while earlier ones are stored."""
_MESSAGES = 2
"""Received and not looked at yet."""
_PATIENCE = 60.0
"""Seconds a message may take: some hundred lines, or one of 16 MiB."""
_ERRORS = {**FAILURES, UNABLE: RendererUnable}
_START = 60.0
_STOP = 2.0
"""Seconds the process may take to see that nobody is there any more."""


class RenderProcess:
    """Renders one segment at a time in a process that is started when first needed, and anew when lost."""

    def __init__(self, *, patience: float = _PATIENCE) -> None:
        """`patience`: seconds without a message after which the process counts as lost."""
        self._patience = patience
        self._here = Here(asyncio.Lock())
        self._turn = asyncio.Lock()
        self._idle: _Child | None = None

    @property
    def pid(self) -> int | None:
        """Of the process while it waits for work."""
        return None if self._idle is None else self._idle.pid

    async def render(self, job: Job, take: Take) -> Tally:
        """One pass; here, where no such process can be had.

        Raises one of `FAILURES`, RendererLost, or what `take` raises.
        """
        try:
            return await self._render_there(job, take)
        except RendererUnable as error:  # before the first piece
            _log.error("rendering here", extra={"event": "renderer_unable", "cause": str(error)})
            return await self._here.render(job, take)

    async def _render_there(self, job: Job, take: Take) -> Tally:
        pieces = Pieces(_READ_AHEAD)
        rendering = asyncio.create_task(self._render(job, pieces))
        try:
            async for piece in pieces:
                await take(piece)
            return await rendering
        finally:
            rendering.cancel()
            await asyncio.gather(rendering, return_exceptions=True)

    async def _render(self, job: Job, pieces: "Pieces") -> Tally:
        """The process turns to the next segment as soon as all pieces are here."""
        try:
            with in_memory(job.stored.data) as data:
                message = encode_job(packed(job, data))
                async with self._turn:
                    return await self._carried_out(message, pieces)
        finally:
            pieces.end()

    async def close(self) -> None:
        child, self._idle = self._idle, None
        if child is not None:
            await child.end()

    async def _carried_out(self, message: bytes, pieces: "Pieces") -> Tally:
        known, self._idle = self._idle, None
        if known is not None and known.is_over:
            await known.end()
        elif known is not None:
            try:
                return await self._by(known, message, pieces)
            except RendererLost:
                if known.has_answered:
                    raise
                _log.warning("renderer died idle", extra={"event": "renderer_gone", "pid": known.pid})
        return await self._by(await _Child.started(self._patience), message, pieces)

    async def _by(self, child: "_Child", message: bytes, pieces: "Pieces") -> Tally:
        """The process is kept only where it has said all it had to say."""
        try:
            return await child.carry_out(message, pieces)
        finally:
            if child.is_idle:
                self._idle = child
            else:
                await child.end()


class Pieces:
    """Rendered pieces that wait to be taken, not many bytes of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[tuple[Piece, int]] = deque()
        self._size = 0
        self._is_over = False
        self._changed = asyncio.Event()

    async def put(self, piece: Piece, size: int) -> None:
        while self._waiting and self._size + size > self._limit:
            await self._change()
        self._waiting.append((piece, size))
        self._size += size
        self._changed.set()

    def end(self) -> None:
        self._is_over = True
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[Piece]:
        while self._waiting or not self._is_over:
            if not self._waiting:
                await self._change()
                continue
            piece, size = self._waiting.popleft()
            self._size -= size
            self._changed.set()
            yield piece

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class _Messages(asyncio.BufferedProtocol):
    """What the process says; each message is read into memory of its own, by as few calls as there can be."""

    def __init__(self) -> None:
        self._header = bytearray(HEADER)
        self._target = self._header
        self._filled = 0
        self._waiting: deque[bytearray] = deque()
        self._transport: asyncio.Transport
        self._changed = asyncio.Event()
        self.is_over = False

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._target)[self._filled :]

    @override
    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._filled < len(self._target):
            return
        self._filled = 0
        if self._target is self._header:
            self._target = bytearray(int.from_bytes(self._header, "little"))
            return
        self._waiting.append(self._target)
        self._target = self._header
        self._changed.set()
        if len(self._waiting) > _MESSAGES:
            self._transport.pause_reading()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over = True
        self._changed.set()

    async def next(self) -> bytearray:
        """Raises ConnectionError when there will be no more."""
        while not self._waiting:
            if self.is_over:
                raise ConnectionError("the connection is closed")
            self._changed.clear()
            await self._changed.wait()
        message = self._waiting.popleft()
        if not self.is_over:
            self._transport.resume_reading()
        return message


class _Child:
    def __init__(
        self,
        process: asyncio.subprocess.Process,
        transport: asyncio.Transport,
        messages: _Messages,
        patience: float,
    ) -> None:
        self._process = process
        self._transport = transport
        self._messages = messages
        self._patience = patience
        self.is_idle = True
        self.has_answered = False
        """Anything of the job it was given last."""

    @classmethod
    async def started(cls, patience: float) -> Self:
        """Raises RendererUnable where it cannot be."""
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", PROGRAM, str(number)),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=[number],
                    env=_without_settings(os.environ),
                )
            except OSError as error:
                ours.close()
                raise RendererUnable(f"no process: {error}") from error
        loop = asyncio.get_running_loop()
        transport, messages = await loop.create_connection(_Messages, sock=ours)
        child = cls(process, transport, messages, patience)
        try:
            await child._reply(_START)
        except BaseException as error:
            await child.end()
            if isinstance(error, RendererLost):
                raise RendererUnable(f"it does not start: {error}") from error
            raise
        RENDERERS_STARTED.inc()
        _log.info("renderer started", extra={"event": "renderer_started", "pid": process.pid})
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_over(self) -> bool:
        return self._process.returncode is not None or self._messages.is_over

    async def carry_out(self, job: bytes, pieces: Pieces) -> Tally:
        self.is_idle = self.has_answered = False
        # no larger than indexes of a segment's lines; what follows says whether it arrived
        self._transport.writelines((len(job).to_bytes(HEADER, "little"), job))
        while True:
            reply, size = await self._reply(self._patience)
            self.has_answered = True
            match reply:
                case Piece():
                    await pieces.put(reply, size)
                case Finished():
                    self.is_idle = True
                    return reply.tally
                case Failed():
                    self.is_idle = True
                    raise _ERRORS.get(reply.kind, RendererLost)(reply.message)
                case Ready():
                    raise RendererLost(f"the rendering process {self.pid} has begun anew")
                case _:
                    assert_never(reply)

    async def _reply(self, within: float) -> tuple[Piece | LastWord, int]:
        """The next one, and its bytes."""
        try:
            async with asyncio.timeout(within):
                message = await self._messages.next()
            return decode_reply(message), len(message)
        except (ConnectionError, TimeoutError, ValueError) as error:
            raise RendererLost(f"the rendering process {self.pid} is lost: {error!r}") from error

    async def end(self) -> None:
        """Its end of the socket closes; what it is still at is of no use to anybody."""
        self._transport.abort()
        try:
            await asyncio.wait_for(self._process.wait(), _STOP)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


def _without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """It needs none of them, and some are secret."""
    return {name: value for name, value in environment.items() if not name.upper().startswith("FLOOPY_")}


def packed(job: Job, data: str) -> PackedJob:
    stored = job.stored
    return PackedJob(
        facts=job.facts,
        sources=list(job.sources),
        parts=job.parts,
        lines=stored.lines,
        results=list(stored.results),
        data=data,
        archives=[(output.path, error.path) for output, error in stored.archives],
    )


@contextmanager
def in_memory(data: bytes | mmap) -> Iterator[str]:
    """The path of a file in memory that other processes of this user can read while the body runs."""
    descriptor = os.memfd_create("floopy-segment")
    try:
        with os.fdopen(os.dup(descriptor), "wb", buffering=0) as file:
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)
