"""The process that renders large segments for a reconciler: `python -m` this module, with its socket.

A message is its length in `HEADER` bytes, least first, and what `core/jobs.py` makes of it. A job comes in,
pieces and a last word go out; the end of the socket is the end of the process. It holds no lease and writes
nothing anywhere.
"""

import gc
import mmap
import os
import queue
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from floopy_common.chassis.heap import bound_heap
from floopy_common.domain.errors import FloopyError
from floopy_common.providers.formats import RESULT_FORMATS
from floopy_reconciler.adapters.files import StoredFile
from floopy_reconciler.core.jobs import (
    FAILURES,
    UNABLE,
    Failed,
    Finished,
    Job,
    LastWord,
    PackedJob,
    Ready,
    Stored,
    decode_job,
    encode_reply,
)
from floopy_reconciler.core.materials import NOTHING, format_of
from floopy_reconciler.core.render import Piece
from floopy_reconciler.ports import Archived

PROGRAM = "floopy_reconciler.adapters.render_process"
HEADER = 4

_MESSAGE = 256 * 1024
"""Bytes of the parts in one message at least: each wakes the reconciler's event loop."""
_AHEAD = 16
"""Messages that wait to be sent."""
_COLLECT_AFTER = 100_000
"""Objects: reference counts free nearly all that rendering makes."""


def main() -> None:
    """Work until the other end of the socket is closed."""
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # they are for the reconciler, which then closes the socket
        signal.signal(number, signal.SIG_IGN)
    bound_heap()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        serve(channel)


def serve(channel: socket.socket) -> None:
    """Render one job after the other, until the other end is closed."""
    outbox: queue.Queue[bytes] = queue.Queue(_AHEAD)
    threading.Thread(target=_send, args=(channel, outbox), daemon=True).start()

    def tell(reply: Piece | LastWord) -> None:
        outbox.put(encode_reply(reply))

    tell(Ready())
    while (message := _received(channel)) is not None:
        tell(carry_out(message, tell))


def _send(channel: socket.socket, outbox: "queue.Queue[bytes]") -> None:
    """Beside the rendering, which would else wait for the reconciler's event loop at every message."""
    try:
        while True:
            message = outbox.get()
            channel.sendall(len(message).to_bytes(HEADER, "little"))
            channel.sendall(message)
    except ConnectionError:  # in the middle of a segment that nobody wants any more
        os._exit(0)


def carry_out(message: bytearray, tell: Callable[[Piece], None]) -> LastWord:
    """Tell all pieces of a job; the last word on it."""
    try:
        packed = decode_job(message)
        with ExitStack() as files:
            try:
                job = _unpacked(packed, files)
            except OSError as error:
                return Failed(UNABLE, str(error))
            renderer = job.renderer()
            for piece in _larger(renderer.pieces()):
                tell(piece)
        return Finished.with_tally(renderer.tally)
    except Exception as error:  # noqa: BLE001 - told, and raised over there
        for kind, expected in FAILURES.items():
            if isinstance(error, expected):
                known = isinstance(error, FloopyError)
                return Failed(kind, str(error) if known else traceback.format_exc())
        return Failed("", traceback.format_exc())


def _larger(pieces: Iterator[Piece]) -> Iterator[Piece]:
    output: list[bytes] = []
    error: list[bytes] = []
    events: list[tuple[bytes, bytes]] = []
    size = 0
    for piece in pieces:
        output += piece.output
        error += piece.error
        events += piece.events
        size += sum(map(len, piece.output)) + sum(map(len, piece.error))
        if size >= _MESSAGE:
            yield Piece(output, error, events)
            output, error, events, size = [], [], [], 0
    if events:
        yield Piece(output, error, events)


def _unpacked(job: PackedJob, files: ExitStack) -> Job:
    def opened(path: str | None) -> Archived:
        if path is None:
            return NOTHING
        return StoredFile(files.enter_context(Path(path).open("rb", buffering=0)).fileno())

    stored = Stored(
        lines=job.lines,
        data=files.enter_context(_mapped(job.data)),
        results=job.results,
        archives=[(opened(output), opened(error)) for output, error in job.archives],
        formats=[RESULT_FORMATS[format_of(source)] for source in job.sources],
    )
    return Job(job.facts, job.sources, stored, job.parts)


def _mapped(path: str) -> mmap.mmap:
    """The reconciler's own memory, not a copy of it."""
    with Path(path).open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _received(channel: socket.socket) -> bytearray | None:
    """The next message; None when there are no more."""
    header = channel.recv(HEADER, socket.MSG_WAITALL)
    if len(header) < HEADER:
        return None
    message = bytearray(int.from_bytes(header, "little"))
    left = memoryview(message)
    while left:
        count = channel.recv_into(left)
        if not count:
            return None
        left = left[count:]
    return message


if __name__ == "__main__":
    main()
