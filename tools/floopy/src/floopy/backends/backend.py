"""What mongod and the brokers share: a program with a readiness check, usable as an async context manager."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from floopy.backends.ports import LOOPBACK, free_port
from floopy.backends.process import ChildProcess, tail

TAIL_LINES = 20


class BackendMissingError(Exception):
    """What the backend runs is not on this machine; says how to get it."""


class StartError(Exception):
    """A program ended, or was not ready in time; carries its last log lines."""


@dataclass(frozen=True)
class Program:
    """A command, and how to tell that it works."""

    name: str
    command: tuple[str, ...]
    port: int
    ready: Callable[[], Awaitable[None]]
    """Returns once the program serves; waits as long as that takes."""
    env: Mapping[str, str] = field(default_factory=dict)
    stop_grace: float = 10.0
    niceness: int = 0


async def until(condition: Callable[[], Awaitable[bool]], interval: float = 0.02) -> None:
    """Waits until a condition outside this process holds, asking every `interval` seconds."""
    while not await condition():  # noqa: ASYNC110  nobody outside this process sets an event for us
        await asyncio.sleep(interval)


async def accepts_connections(port: int) -> bool:
    """Tells whether something listens on the port."""
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


async def start(program: Program, log: Path, timeout: float) -> ChildProcess:
    """Starts a program and waits until it is ready. Raises StartError, leaving nothing behind."""
    process = ChildProcess.start(program.name, program.command, log, program.env, program.niceness)
    exited = asyncio.ensure_future(process.exited())
    ready = asyncio.ensure_future(program.ready())
    started = False
    try:
        await asyncio.wait({exited, ready}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        started = ready.done() and ready.result() is None and not exited.done()
    finally:
        for task in (exited, ready):
            task.cancel()
        await asyncio.gather(exited, ready, return_exceptions=True)
        if not started:
            await process.kill()
    if not started:
        reason = f"ended with {process.returncode}" if exited.done() else f"was not ready after {timeout:g} s"
        raise StartError(f"{program.name} {reason}; {log} ends with:\n{tail(log, TAIL_LINES)}")
    return process


class Backend(ABC):
    """A server with its data in one directory: `async with` it to get its address."""

    start_timeout = 60.0

    def __init__(self, data_dir: Path, *, port: int | None = None) -> None:
        self.data_dir = data_dir
        self.port = port or free_port()
        self._process: ChildProcess | None = None

    @property
    @abstractmethod
    def address(self) -> str:
        """What clients are given: a MongoDB URI or Kafka bootstrap servers."""

    @abstractmethod
    def program(self) -> Program:
        """Prepares the data directory and returns what to run; repeatable."""

    @property
    def log(self) -> Path:
        return self.data_dir / "server.log"

    @property
    def process(self) -> ChildProcess:
        if self._process is None:
            raise RuntimeError("the backend is not running")
        return self._process

    async def start(self) -> str:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._process = await start(self.program(), self.log, self.start_timeout)
        return self.address

    async def stop(self) -> None:
        await self.process.stop()

    async def kill(self) -> None:
        """Ends it the hard way, as a machine that loses power would."""
        await self.process.kill()

    async def __aenter__(self) -> str:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
