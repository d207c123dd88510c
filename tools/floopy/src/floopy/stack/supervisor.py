"""Keeps child processes alive: restarts with back-off, waits for what they need, gives up on a crash loop."""

import asyncio
import re
import signal
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from typing_extensions import override

from floopy.backends.backend import Program
from floopy.backends.process import ChildProcess, tail

BACKOFF_MIN = 0.2
BACKOFF_MAX = 5.0
TAIL_LINES = 15
_KILLS = frozenset({"SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"})
_DEATH = re.compile(r"(\S+) ended with (SIG\w+|exit code \d+) and is started again; see (.+)")


class CrashLoopError(Exception):
    """A child died too often before it was ready; says whose, why, and its last log lines."""


class NotReadyError(Exception):
    """Some children were not ready in time; says which, and their last log lines."""


@dataclass(frozen=True)
class Limits:
    """How many deaths before readiness, within how many seconds, stop everything."""

    max_deaths: int = 5
    window: float = 60.0


@dataclass(frozen=True)
class ProcessRecord:
    """A running child, as the outside sees it."""

    name: str
    pid: int
    port: int


class Death(NamedTuple):
    """A child that ended and is started again; `end` is a signal's name or `exit code N`."""

    child: str
    end: str
    log: Path

    @override
    def __str__(self) -> str:
        return f"{self.child} ended with {self.end} and is started again; see {self.log}"

    @property
    def is_crash(self) -> bool:
        """It ended of itself, by an exit or a fault (SIGSEGV, SIGABRT, ...): nobody killed it."""
        return self.end not in _KILLS


def deaths_in(said: str) -> list[Death]:
    """Those that whoever runs a supervisor has printed, a line each."""
    told = map(_DEATH.fullmatch, said.splitlines())
    return [Death(found[1], found[2], Path(found[3])) for found in told if found is not None]


@dataclass(eq=False)
class Child:
    """One supervised program and what has become of it so far."""

    name: str
    make: Callable[[], Program]
    """Prepares a start and returns what to run; called before each, outside the event loop's thread."""
    log: Path
    needs: tuple["Child", ...] = ()
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    process: ChildProcess | None = None
    program: Program | None = None
    deaths: int = 0
    untimely: deque[float] = field(default_factory=deque)
    """Times of the deaths before readiness that nobody else is to blame for."""

    def needs_ready(self) -> bool:
        return all(need.ready.is_set() for need in self.needs)


class Supervisor:
    """Starts children in the order they are added, as soon as what they need is ready."""

    def __init__(
        self,
        logs: Path,
        limits: Limits,
        changed: Callable[[Sequence[ProcessRecord]], None],
        died: Callable[[Death], None],
    ) -> None:
        """`changed` gets what runs now; `died` each death of a child that is started again."""
        self._logs = logs
        self._limits = limits
        self._changed = changed
        self._died = died
        self._children: dict[Child, asyncio.Task[None]] = {}

    def add(self, name: str, make: Callable[[], Program], needs: Sequence[Child] = ()) -> Child:
        child = Child(name, make, self._logs / f"{name}.log", tuple(needs))
        self._children[child] = asyncio.create_task(self._keep(child), name=f"keep {name}")
        return child

    async def wait_ready(self, timeout: float, children: Sequence[Child] = ()) -> None:
        """Returns when these children, or else all, are ready.

        Raises CrashLoopError, NotReadyError, or whatever kept a child from being started.
        """
        awaited = children or tuple(self._children)
        everyone: asyncio.Future[Any] = asyncio.gather(*(child.ready.wait() for child in awaited))
        try:
            done, _ = await asyncio.wait(
                {everyone, *self._children.values()}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
            _raise_failure(done - {everyone})
            if not everyone.done():
                raise NotReadyError(_tardy(awaited, timeout))
        finally:
            everyone.cancel()
            await asyncio.gather(everyone, return_exceptions=True)

    async def watch(self) -> None:
        """Never returns; raises CrashLoopError when a child is given up."""
        done, _ = await asyncio.wait(self._children.values(), return_when=asyncio.FIRST_COMPLETED)
        _raise_failure(done)

    async def stop(self) -> None:
        """Ends the children, those that are needed last, and kills what takes too long."""
        for task in self._children.values():
            task.cancel()
        await asyncio.gather(*self._children.values(), return_exceptions=True)
        left = [child for child in self._children if child.process is not None]
        while left:
            needed = {need for child in left for need in child.needs}
            wave = [child for child in left if child not in needed]
            await asyncio.gather(*(self._end(child) for child in wave))
            left = [child for child in left if child in needed]

    async def _end(self, child: Child) -> None:
        if child.process is not None and child.program is not None:
            await child.process.stop(child.program.stop_grace)
            child.process = None
            self._tell()

    async def _keep(self, child: Child) -> None:
        backoff = BACKOFF_MIN
        while True:
            for need in child.needs:
                await need.ready.wait()
            lived = await self._live(child)
            if lived > BACKOFF_MAX:
                backoff = BACKOFF_MIN
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, BACKOFF_MAX)

    async def _live(self, child: Child) -> float:
        """Runs a child until it dies and returns for how many seconds it was ready."""
        clock = asyncio.get_running_loop().time
        program = await asyncio.to_thread(child.make)
        process = ChildProcess.start(child.name, program.command, child.log, program.env, program.niceness)
        child.program, child.process = program, process
        self._tell()
        ready_at = clock() if await _became_ready(child, program, process) else None
        code = await process.exited()
        child.ready.clear()
        child.process = None
        child.deaths += 1
        self._tell()
        if ready_at is None:
            self._count(child, code, clock())
        else:
            child.untimely.clear()
        self._died(Death(child.name, describe_end(code), child.log))
        return 0.0 if ready_at is None else clock() - ready_at

    def _count(self, child: Child, code: int, now: float) -> None:
        if not child.needs_ready():  # it could not become ready; that is not its own doing
            return
        child.untimely.append(now)
        while child.untimely[0] < now - self._limits.window:
            child.untimely.popleft()
        if len(child.untimely) >= self._limits.max_deaths:
            raise CrashLoopError(
                f"{child.name} died {len(child.untimely)} times within {self._limits.window:g} s before it "
                f"was ready, last with {describe_end(code)}.\n{last_words(child.log)}"
            )

    def running(self) -> list[ProcessRecord]:
        return [
            ProcessRecord(child.name, child.process.pid, child.program.port)
            for child in self._children
            if child.process is not None and child.program is not None
        ]

    def _tell(self) -> None:
        self._changed(self.running())


async def _became_ready(child: Child, program: Program, process: ChildProcess) -> bool:
    """Waits until the child is ready or dead; tells whether it is ready."""
    exited = asyncio.ensure_future(process.exited())
    ready = asyncio.ensure_future(program.ready())
    try:
        await asyncio.wait({exited, ready}, return_when=asyncio.FIRST_COMPLETED)
        if exited.done() or ready.result() is not None:
            return False
        child.ready.set()
        return True
    finally:
        for task in (exited, ready):
            task.cancel()
        await asyncio.gather(exited, ready, return_exceptions=True)


def _raise_failure(done: Iterable[asyncio.Future[Any]]) -> None:
    for task in done:
        task.result()


def _tardy(children: Sequence[Child], timeout: float) -> str:
    late = [child for child in children if not child.ready.is_set() and child.needs_ready()]
    return "\n".join(
        f"{child.name} was not ready after {timeout:g} s.\n{last_words(child.log)}" for child in late
    )


def describe_end(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def last_words(log: Path) -> str:
    text = tail(log, TAIL_LINES)
    return f"{log} ends with:\n{text}" if text else f"{log} is empty."
