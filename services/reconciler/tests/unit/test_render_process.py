"""The process that renders: what it gives, and what becomes of a segment when it is lost."""

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest

from floopy_common.domain.errors import Invalid
from floopy_reconciler.adapters.files import StoredFile
from floopy_reconciler.adapters.renderer import Pieces, RenderProcess
from floopy_reconciler.core.jobs import Job
from floopy_reconciler.core.render import Piece
from floopy_reconciler.core.rendering import Here
from floopy_reconciler.errors import RendererLost

LINES = 6_000
"""More than the sockets and the queues between the two processes hold."""


class Taken:
    """Takes pieces; `first` is set by the first of them, after which it waits for `go`."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.first, self.go = asyncio.Event(), asyncio.Event()
        self.go.set()

    async def __call__(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.first.set()
        await self.go.wait()

    @property
    def content(self) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]]:
        return (
            b"".join(part for piece in self.pieces for part in piece.output),
            b"".join(part for piece in self.pieces for part in piece.error),
            [event for piece in self.pieces for event in piece.events],
        )


@pytest.fixture
def job(make: Any) -> "Iterator[Callable[[int], Job]]":
    """Jobs of so many lines, every third of which has failed; their archives are files."""
    files = ExitStack()

    def stored(raw: bytes) -> StoredFile:
        file = files.enter_context(TemporaryFile())  # noqa: SIM115
        file.write(raw)
        file.flush()
        return StoredFile(file.fileno())

    def made(lines: int) -> Job:
        inputs = {line: make.input(f"user-{line}", "Why? " * 100) for line in range(1, lines + 1)}
        results = {
            line: make.success(line, "Because. " * 100) if line % 3 else make.failure(line, 400)
            for line in inputs
        }
        found: Job = make.case(inputs, [make.shard(lines=list(inputs), results=results)]).job(stored)
        return found

    with files:
        yield made


@asynccontextmanager
async def process(patience: float = 30.0) -> AsyncIterator[RenderProcess]:
    async with asyncio.timeout(60):
        renderer = RenderProcess(patience=patience)
        try:
            yield renderer
        finally:
            await renderer.close()


@pytest.fixture
async def renderer() -> AsyncIterator[RenderProcess]:
    async with process() as started:
        yield started


async def pid_of(renderer: RenderProcess, job: Callable[[int], Job]) -> int:
    """The process, after a job of its own."""
    await renderer.render(job(3), Taken())
    assert renderer.pid is not None
    return renderer.pid


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_it_gives_what_rendering_here_gives_job_after_job(
    renderer: RenderProcess, job: Callable[[int], Job]
) -> None:
    pids = set()
    for lines in (LINES, 1, 500):
        there, here = Taken(), Taken()
        tally = await renderer.render(job(lines), there)
        assert tally == await Here(asyncio.Lock()).render(job(lines), here)
        assert tally.completed + tally.failed == lines
        assert there.content == here.content
        pids.add(renderer.pid)
    assert len(pids) == 1


async def test_segments_take_turns_and_the_next_one_begins_before_all_of_this_one_is_taken(
    renderer: RenderProcess, job: Callable[[int], Job]
) -> None:
    slow, quick = Taken(), Taken()
    slow.go.clear()
    first = asyncio.create_task(renderer.render(job(500), slow))
    await slow.first.wait()

    await renderer.render(job(500), quick)

    assert len(slow.pieces) == 1
    slow.go.set()
    await first
    assert slow.content == quick.content


async def test_what_cannot_be_rendered_says_so_and_the_process_goes_on(
    renderer: RenderProcess, job: Callable[[int], Job]
) -> None:
    pid = await pid_of(renderer, job)
    whole = job(3)
    unreadable = replace(whole, stored=replace(whole.stored, data=whole.stored.data.replace(b"{", b"[")))

    with pytest.raises(Invalid, match="line 1 of the input cannot be read"):
        await renderer.render(unreadable, Taken())

    assert await pid_of(renderer, job) == pid


async def test_a_signal_for_all_of_the_group_is_not_for_the_process(
    renderer: RenderProcess, job: Callable[[int], Job]
) -> None:
    pid = await pid_of(renderer, job)
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(pid, number)

    assert await pid_of(renderer, job) == pid


async def test_the_process_has_none_of_our_secrets(
    renderer: RenderProcess, job: Callable[[int], Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("floopy_secret_key", "a-secret")
    monkeypatch.setenv("FLOOPY_MONGO__URI", "mongodb://me:pass@nowhere")
    pid = await pid_of(renderer, job)

    environment = Path(f"/proc/{pid}/environ").read_bytes()

    assert b"PATH=" in environment
    assert b"floopy_" not in environment.lower()


async def test_a_process_killed_while_it_waited_is_nobodys_loss(
    renderer: RenderProcess, job: Callable[[int], Job]
) -> None:
    pid = await pid_of(renderer, job)
    os.kill(pid, signal.SIGKILL)

    again = await pid_of(renderer, job)

    assert again != pid


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
async def test_a_process_lost_in_the_middle_loses_one_try(
    number: signal.Signals, job: Callable[[int], Job]
) -> None:
    async with process(patience=3.0) as renderer:
        pid = await pid_of(renderer, job)
        taken = Taken()
        taken.go.clear()
        rendering = asyncio.create_task(renderer.render(job(LINES), taken))
        await taken.first.wait()
        os.kill(pid, number)
        taken.go.set()

        with pytest.raises(RendererLost, match=f"process {pid} is lost"):
            await rendering

        assert not is_there(pid)
        taken = Taken()
        await renderer.render(job(LINES), taken)
        assert len(taken.content[2]) == LINES


async def test_what_taking_raises_is_raised_and_the_next_segment_is_whole(
    renderer: RenderProcess, job: Callable[[int], Job]
) -> None:
    async def refuse(_: Piece) -> None:
        raise ConnectionError("no database")

    with pytest.raises(ConnectionError, match="no database"):
        await renderer.render(job(LINES), refuse)

    taken = Taken()
    await renderer.render(job(20), taken)
    assert len(taken.content[2]) == 20


async def test_who_is_cancelled_leaves_nothing_to_the_next(
    renderer: RenderProcess, job: Callable[[int], Job]
) -> None:
    pid = await pid_of(renderer, job)
    taken = Taken()
    taken.go.clear()
    rendering = asyncio.create_task(renderer.render(job(LINES), taken))
    await taken.first.wait()
    rendering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await rendering

    assert not is_there(pid)
    taken = Taken()
    await renderer.render(job(20), taken)
    assert len(taken.content[2]) == 20


@pytest.mark.parametrize(
    ("name", "value"),
    [("PROGRAM", "floopy_reconciler.nowhere"), ("sys.executable", "/nowhere/python")],
    ids=["ends at once", "is not there"],
)
async def test_where_no_process_starts_segments_are_rendered_here(
    renderer: RenderProcess,
    job: Callable[[int], Job],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
) -> None:
    monkeypatch.setattr(f"floopy_reconciler.adapters.renderer.{name}", value)
    taken, here = Taken(), Taken()

    tally = await renderer.render(job(300), taken)

    assert renderer.pid is None
    assert tally == await Here(asyncio.Lock()).render(job(300), here)
    assert taken.content == here.content


async def test_what_the_process_may_not_read_is_rendered_here(
    renderer: RenderProcess, job: Callable[[int], Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = await pid_of(renderer, job)
    monkeypatch.setattr(StoredFile, "path", "/nowhere/archive")
    taken = Taken()

    await renderer.render(job(300), taken)

    assert len(taken.content[2]) == 300
    assert renderer.pid == pid


async def test_closing_ends_the_process(renderer: RenderProcess, job: Callable[[int], Job]) -> None:
    pid = await pid_of(renderer, job)
    await renderer.close()
    assert not is_there(pid)


_PARENT = """
import asyncio
from floopy_reconciler.adapters.renderer import _Child
async def main():
    child = await _Child.started(30.0)
    print(child.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_it_ends_with_a_reconciler_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout as said:
        pid = int(await asyncio.to_thread(said.readline))
    orphan = os.pidfd_open(pid)
    parent.kill()
    parent.wait()

    ended, _, _ = await asyncio.to_thread(select.select, [orphan], [], [], 20)
    os.close(orphan)
    assert ended


async def test_pieces_wait_within_their_bound() -> None:
    pieces, put = Pieces(100), []

    async def fill() -> None:
        for number in range(5):
            await pieces.put(Piece([b"%d" % number], [], []), 60)
            put.append(number)
        pieces.end()

    filling = asyncio.create_task(fill())
    taken = []
    async with asyncio.timeout(5):
        async for piece in pieces:
            taken.append(piece.output[0])
            assert len(put) <= len(taken) + 1
        await filling
    assert taken == [b"0", b"1", b"2", b"3", b"4"]
