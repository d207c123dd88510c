"""A small HTTP load: keep-alive connections that ask the same thing again and again."""

import asyncio
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit


class Connection:
    """One HTTP/1.1 connection, as cheap as Python makes it, so that the server is what is measured."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, request: bytes) -> int:
        """Send a whole request; the status of its answer, whose body is read and dropped."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
        await self._reader.readexactly(int(length))
        return status

    def close(self) -> None:
        self._writer.close()


def request(method: str, url: str, api_key: str, body: bytes = b"") -> bytes:
    target = urlsplit(url)
    path = target.path + (f"?{target.query}" if target.query else "")
    head = f"{method} {path} HTTP/1.1\r\nHost: {target.netloc}\r\nAuthorization: Bearer {api_key}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


async def connect(base_url: str, count: int) -> list[Connection]:
    target = urlsplit(base_url)
    return [Connection(*await asyncio.open_connection(target.hostname, target.port)) for _ in range(count)]


async def saturate(connections: Sequence[Connection], make: Callable[[], bytes], seconds: float) -> int:
    """Keep every connection busy for `seconds`; how many requests were answered, all with 2xx."""
    until = time.monotonic() + seconds

    async def keep_asking(connection: Connection) -> int:
        answered = 0
        while time.monotonic() < until:
            status = await connection.ask(make())
            if status >= 300:
                raise RuntimeError(f"answered with {status}")
            answered += 1
        return answered

    return sum(await asyncio.gather(*(keep_asking(connection) for connection in connections)))


async def paced(
    connections: Sequence[Connection], make: Callable[[], bytes], rate: float, count: int
) -> list[float]:
    """`count` requests, `rate` a second whatever the answers take; milliseconds of each since it was due."""
    idle: asyncio.Queue[Connection] = asyncio.Queue()
    for connection in connections:
        idle.put_nowait(connection)
    began = time.monotonic()

    async def one(number: int) -> float:
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        connection = await idle.get()
        await connection.ask(make())
        idle.put_nowait(connection)
        return (time.monotonic() - due) * 1000

    return list(await asyncio.gather(*(one(number) for number in range(count))))
