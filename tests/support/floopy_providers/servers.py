"""Servers that answer what no simulator would."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def odd_server(handler: Handler) -> AsyncIterator[str]:
    """A server that answers everything with `handler`; its base URL."""
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


@dataclass
class Listener:
    """A port that takes what comes and, at most, says one thing."""

    url: str = ""
    received: bytearray = field(default_factory=bytearray)
    connections: int = 0


@asynccontextmanager
async def listener(answer: bytes | None = None) -> AsyncIterator[Listener]:
    """Reads for ever; with `answer`, sends that after the first bytes and hangs up."""
    heard = Listener()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.connections += 1
        try:
            while piece := await reader.read(65_536):
                heard.received += piece
                if answer is not None:
                    writer.write(answer)
                    await writer.drain()
                    break
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    heard.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield heard
    finally:
        server.close()
