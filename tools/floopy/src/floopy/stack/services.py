"""The product's own processes: which there are, how they are started, when they are ready."""

import asyncio
import contextlib
import shutil
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from floopy.backends.backend import Program, accepts_connections, until
from floopy.backends.ports import LOOPBACK

API = "floopy-api"
WORKERS = (
    "floopy-submitter",
    "floopy-reconciler",
    "floopy-metering",
    "floopy-logging",
    "floopy-feedback",
)
WORKER_NICENESS = 5
"""Workers share a machine with the API: somebody waits for its answers, nobody for theirs."""
SIMULATOR = "simulator"
PROBE_TIMEOUT = 6.0
"""Seconds for one answer: a readiness check of a service may take five."""


class ScriptMissingError(Exception):
    """A console script of the product is not installed."""


def find_script(name: str) -> str:
    """Returns the console script of this environment. Raises ScriptMissingError."""
    beside = Path(sys.executable).parent / name
    if beside.is_file():
        return str(beside)
    if on_path := shutil.which(name):
        return on_path
    raise ScriptMissingError(f"{name} is not installed beside {sys.executable}: make setup")


def service_program(name: str, port: int, env: Mapping[str, str]) -> Program:
    """A service that answers /readyz on `port`."""
    ready = partial(until, partial(answers_ok, port, "/readyz"), 0.05)
    niceness = WORKER_NICENESS if name in WORKERS else 0
    return Program(name, (find_script(name),), port, ready, env, niceness=niceness)


def simulator_program(port: int, data_dir: Path) -> Program:
    command = (find_script("floopy-simulator"), "--port", str(port), "--data-dir", str(data_dir))
    return Program(SIMULATOR, command, port, partial(until, partial(accepts_connections, port)))


async def answers_ok(port: int, path: str) -> bool:
    """Tells whether GET on a loopback port answers 200."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {LOOPBACK}\r\nConnection: close\r\n\r\n".encode())
                return (await reader.readline()).split(b" ")[1:2] == [b"200"]
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except OSError:  # TimeoutError is one
        return False
