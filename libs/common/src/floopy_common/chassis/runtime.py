"""What every service process has: logs, probes, metrics, stop signals, and a way to run its loops."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from floopy_common.chassis.logs import configure_logs
from floopy_common.chassis.probes import Check, Probes, serving_probes
from floopy_common.settings import Settings

_log = logging.getLogger(__name__)


class Runtime:
    """A running process; `stop` is set by SIGTERM or SIGINT and by a coroutine that crashed."""

    def __init__(self, name: str, probes: Probes) -> None:
        self.name = name
        self.owner = f"{name}@{socket.gethostname()}:{os.getpid()}"
        self.stop = asyncio.Event()
        self._probes = probes

    def ready(self, name: str, check: Check) -> None:
        """Add a readiness check."""
        self._probes.add(name, check)

    async def run(self, *coroutines: Coroutine[Any, Any, None]) -> None:
        """Run all until `stop`; the first that fails stops the others and its error is raised."""
        _log.info("started", extra={"event": "started", "metrics_port": self._probes.port})
        tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
        stopping = asyncio.create_task(self.stop.wait())
        try:
            pending = {*tasks, stopping}
            while not self.stop.is_set() and pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                _raise_first(done - {stopping})
            self.stop.set()
            await asyncio.gather(*tasks)
        finally:
            self.stop.set()
            for task in (*tasks, stopping):
                task.cancel()
            await asyncio.gather(*tasks, stopping, return_exceptions=True)
            _log.info("stopped", extra={"event": "stopped"})


def _raise_first(done: set[asyncio.Task[Any]]) -> None:
    for task in done:
        if task.cancelled():  # by nobody here; raised as it is it would say neither what nor why
            raise RuntimeError(f"{task.get_coro()!r} was cancelled")
        if (error := task.exception()) is not None:
            raise error


@asynccontextmanager
async def service_runtime(name: str, settings: Settings) -> AsyncIterator[Runtime]:
    """Configure logs, serve probes and metrics on `settings.metrics_port`, turn signals into `stop`."""
    configure_logs(name)
    probes = Probes()
    runtime = Runtime(name, probes)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, runtime.stop.set)
    async with serving_probes(probes, settings.metrics_host, settings.metrics_port):
        yield runtime
