"""Probes and metrics of a process, on a port of their own."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Histogram, generate_latest

Check = Callable[[], Awaitable[bool]]

_LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 20.0)
LOOP_LAG = Histogram(
    "floopy_loop_lag_seconds", "How late the event loop ran a timer that was due.", buckets=_LAG_BUCKETS
)
_LAG_INTERVAL = 0.05
_CHECK_TIMEOUT = 5.0


class Probes:
    """Liveness is that the loop answers; readiness is that every registered check passes."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self.port = 0

    def add(self, name: str, check: Check) -> None:
        self._checks[name] = check

    async def failing(self) -> dict[str, str]:
        """Name and reason of each check that does not pass."""
        failures: dict[str, str] = {}
        for name, check in self._checks.items():
            try:
                async with asyncio.timeout(_CHECK_TIMEOUT):
                    if not await check():
                        failures[name] = "not yet"
            except Exception as error:  # noqa: BLE001 - whatever a check raises is its answer
                failures[name] = type(error).__name__
        return failures

    async def healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(self, _: web.Request) -> web.Response:
        failures = await self.failing()
        return web.json_response(
            {"status": "not ready" if failures else "ok", "failing": failures},
            status=503 if failures else 200,
        )

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})


@asynccontextmanager
async def serving_probes(probes: Probes, host: str, port: int) -> AsyncIterator[None]:
    """Serve /healthz, /readyz and /metrics, and measure the loop's lag; port 0 picks a free one."""
    app = web.Application()
    app.router.add_get("/healthz", probes.healthz)
    app.router.add_get("/readyz", probes.readyz)
    app.router.add_get("/metrics", probes.metrics)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    probes.port = runner.addresses[0][1]
    lag = asyncio.create_task(_measure_lag())
    try:
        yield
    finally:
        lag.cancel()
        await asyncio.gather(lag, return_exceptions=True)
        await runner.cleanup()


async def _measure_lag() -> None:
    while True:
        due = time.monotonic() + _LAG_INTERVAL
        await asyncio.sleep(_LAG_INTERVAL)
        LOOP_LAG.observe(max(0.0, time.monotonic() - due))
