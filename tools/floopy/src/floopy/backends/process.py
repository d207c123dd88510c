"""One child process: on a leash, logging to a file, awaited without threads, stopped within bounds."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from floopy.backends import leash

TAIL_BYTES = 16_384
"""Enough for the last traceback of a process that died."""


class ChildProcess:
    """A started program; dies with the process that started it, even when that one is SIGKILLed."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @classmethod
    def start(
        cls, name: str, command: Sequence[str], log: Path, env: Mapping[str, str], niceness: int = 0
    ) -> "ChildProcess":
        """Starts `command` with `env` on top of this process's environment, so much nicer than this process.

        Raises RuntimeError outside the main thread: the kernel ties the leash to the thread that forked.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("child processes must be started from the main thread")
        log.parent.mkdir(parents=True, exist_ok=True)
        leashed = [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), str(niceness), *command]
        with log.open("ab") as output:
            process = subprocess.Popen(
                leashed,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                start_new_session=True,  # a Ctrl-C in the terminal is ours to pass on, in order
            )
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative: the signal that killed it."""
        return self._process.poll()

    async def exited(self) -> int:
        """Waits for the end of the process and returns its return code."""
        if (code := self.returncode) is not None:
            return code
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        descriptor = os.pidfd_open(self.pid)
        try:
            loop.add_reader(descriptor, ended.set)
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        return self._process.wait()

    def send(self, number: signal.Signals) -> None:
        if self.returncode is None:
            self._process.send_signal(number)

    async def stop(self, grace: float = 10.0) -> None:
        """Asks it to end and kills it after `grace` seconds."""
        self.send(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.exited(), grace)
        except TimeoutError:
            await self.kill()
        except asyncio.CancelledError:
            self.send(signal.SIGKILL)
            raise

    async def kill(self) -> None:
        self.send(signal.SIGCONT)
        self.send(signal.SIGKILL)
        await self.exited()


def tail(log: Path, lines: int) -> str:
    """Returns the last lines of a log file, an empty text where there is none."""
    with contextlib.suppress(FileNotFoundError), log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return "\n".join(stream.read().decode(errors="replace").splitlines()[-lines:])
    return ""
