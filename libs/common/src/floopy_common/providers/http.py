"""HTTP towards providers: connections without retries or cookies, and bodies that know if they left."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from typing_extensions import override

CONNECT_TIMEOUT = 10.0
MAX_ANSWER = 8 * 1024 * 1024
"""A page of a hundred batches with full metadata is below 2 MB; anything larger is no answer."""
_DOWNLOAD_PIECE = 256 * 1024
_HEADERS = {"User-Agent": "floopy-batch", "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class Connections:
    """`reading` keeps connections; `writing` opens one per call, so that no call meets a dying one."""

    reading: aiohttp.ClientSession
    writing: aiohttp.ClientSession


@asynccontextmanager
async def open_connections() -> AsyncIterator[Connections]:
    """Connections for every account of this process; none carries a credential by itself."""
    async with (
        _session(aiohttp.TCPConnector(limit=100, limit_per_host=32)) as reading,
        _session(aiohttp.TCPConnector(limit=100, force_close=True)) as writing,
    ):
        yield Connections(reading, writing)


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=_HEADERS,
        auto_decompress=False,
        trust_env=False,
        # a download is written in pieces; the default buffer of 64 KiB stops the socket too often
        read_bufsize=_DOWNLOAD_PIECE,
    )
    # aiohttp repeats a GET or DELETE whose connection breaks, and has no public switch against it
    session._retry_connection = False  # noqa: SLF001
    return session


class TooMuch(aiohttp.ClientError):
    """An answer longer than any honest one."""


async def read_bounded(response: aiohttp.ClientResponse, limit: int = MAX_ANSWER) -> bytes:
    """The whole body; TooMuch beyond `limit`."""
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > limit:
            raise TooMuch(f"an answer of more than {limit} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def retry_after(response: aiohttp.ClientResponse, now: datetime) -> float | None:
    """Seconds the provider asks to wait, from either header and either form."""
    milliseconds = _number(response.headers.get("retry-after-ms"))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    value = response.headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None or value is None:
        return None if seconds is None else max(0.0, seconds)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


class _Outgoing(Payload):
    """A body that is written once and is never repeated."""

    @override
    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise TypeError("this body is streamed")


class GuardedBody(_Outgoing):
    """Bytes that leave only if `before_send` lets them; headers leave together with them."""

    def __init__(self, body: bytes, content_type: str, before_send: Callable[[], None]) -> None:
        super().__init__(body, content_type=content_type)
        self._body = body
        self._size = len(body)
        self._before_send = before_send
        self.failure: Exception | None = None
        self.started = False

    @override
    async def write(self, writer: AbstractStreamWriter) -> None:
        try:
            self._before_send()
        except Exception as failure:
            self.failure = failure
            raise
        self.started = True
        await writer.write(self._body)


class WrongSize(Exception):  # noqa: N818 - says what happened
    """A streamed body that is not as long as its announced size."""


class StreamedBody(_Outgoing):
    """`head`, then exactly `size` bytes of `chunks`, then `tail`; nothing is held whole."""

    def __init__(
        self, head: bytes, chunks: AsyncIterator[bytes], size: int, tail: bytes, content_type: str
    ) -> None:
        super().__init__(chunks, content_type=content_type)
        self._head = head
        self._chunks = chunks
        self._tail = tail
        self._content = size
        self._size = len(head) + size + len(tail)
        self.failure: Exception | None = None

    @override
    async def write(self, writer: AbstractStreamWriter) -> None:
        try:
            await self._write(writer)
        except aiohttp.ClientError:
            raise
        except Exception as failure:
            self.failure = failure
            raise

    async def _write(self, writer: AbstractStreamWriter) -> None:
        self._allow(last=False)
        await writer.write(self._head)
        sent = 0
        async for chunk in self._chunks:
            sent += len(chunk)
            if sent > self._content:
                raise WrongSize(f"more than the announced {self._content} bytes")
            await writer.write(chunk)
        if sent != self._content:
            raise WrongSize(f"{sent} of the announced {self._content} bytes")
        self._allow(last=True)
        await writer.write(self._tail)

    def _allow(self, *, last: bool) -> None:
        """Runs before the first byte leaves, and with `last` before the tail does."""


class GuardedStream(StreamedBody):
    """A streamed body that `before_send` must let go, at its beginning and once more before its tail.

    Without its tail it is no request at all: until `started` the other side cannot have carried it out.
    """

    def __init__(
        self,
        head: bytes,
        chunks: AsyncIterator[bytes],
        size: int,
        tail: bytes,
        content_type: str,
        *,
        before_send: Callable[[], None],
    ) -> None:
        super().__init__(head, chunks, size, tail, content_type)
        self._before_send = before_send
        self.started = False

    @override
    def _allow(self, *, last: bool) -> None:
        self._before_send()
        self.started = last
