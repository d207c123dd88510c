"""One account's HTTP API at a provider: one request a call, nothing repeated, nothing followed."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TypeVar

import aiohttp
import msgspec
from pydantic import SecretStr
from yarl import URL

from floopy_common.providers.answers import Refusal, clean, read_refusal
from floopy_common.providers.http import (
    CONNECT_TIMEOUT,
    Connections,
    GuardedBody,
    GuardedStream,
    read_bounded,
)
from floopy_common.providers.port import (
    Ambiguous,
    NotAccepted,
    ProviderBatch,
    ProviderError,
    ProviderStatus,
    ResultStream,
    Unavailable,
)

READ_TIMEOUT = 30.0
"""Seconds for a look, and for silence inside a download."""

FAILURES = (aiohttp.ClientError, OSError, ValueError)
"""What aiohttp raises, a timeout and a URL or header nobody can send among it."""

_ENDING = frozenset({ProviderStatus.CANCELLING}) | {status for status in ProviderStatus if status.is_terminal}
_Answer = TypeVar("_Answer")
_Sending = AbstractAsyncContextManager[aiohttp.ClientResponse]


@dataclass(frozen=True)
class Access:
    """Where an account is reached, and with which key; the key goes nowhere else."""

    base_url: str
    api_key: SecretStr


class Garbled(Exception):  # noqa: N818 - says what happened
    """A success whose body is not what was asked for."""


class ProviderApi:
    """Calls below one base URL with one set of headers; ValueError for an unusable URL."""

    def __init__(
        self,
        access: Access,
        connections: Connections,
        *,
        headers: Mapping[str, str],
        read_timeout: float = READ_TIMEOUT,
    ) -> None:
        self.key = access.api_key.get_secret_value()
        self.read_timeout = read_timeout
        self._base_url = str(URL(access.base_url.rstrip("/")))
        self._headers = dict(headers)
        self._connections = connections

    async def read(self, path: str, decode: Callable[[bytes], _Answer]) -> _Answer:
        """What a GET answers; NotFound or Unavailable."""
        timeout = aiohttp.ClientTimeout(total=self.read_timeout, sock_connect=CONNECT_TIMEOUT)
        return await self._answer(self._send(self._connections.reading, "GET", path, timeout), decode)

    async def call(self, method: str, path: str, decode: Callable[[bytes], _Answer]) -> _Answer:
        """What a call that may be made again answers; NotFound or Unavailable."""
        return await self._answer(self.write(method, path, self.read_timeout), decode)

    async def create(
        self,
        path: str,
        seconds: float,
        body: GuardedBody | GuardedStream,
        decode: Callable[[bytes], _Answer],
        *,
        refused: Callable[[Refusal], ProviderError] = Refusal.of_create,
        stopped: Callable[[Exception], Exception] = lambda failure: failure,
    ) -> _Answer:
        """What a call that must not be made twice answers. Raises NotAccepted or Ambiguous.

        `stopped` says what is raised for what kept the body from leaving.
        """
        try:
            async with self.write("POST", path, seconds, body) as response:
                if not 200 <= response.status < 300:
                    raise refused(await read_refusal(response, self.key))
                return decoded(decode, await read_bounded(response))
        except (*FAILURES, Garbled) as error:
            if body.failure is not None:
                raise stopped(body.failure) from error
            if body.started:
                raise Ambiguous(self.say(error)) from error
            raise NotAccepted(self.say(error), status=None, retryable=True) from error

    def write(self, method: str, path: str, seconds: float, body: aiohttp.Payload | None = None) -> _Sending:
        """A call on a connection of its own; FAILURES are the caller's to understand."""
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_TIMEOUT)
        return self._send(self._connections.writing, method, path, timeout, body)

    @asynccontextmanager
    async def download(self, path: str) -> AsyncIterator[ResultStream]:
        """The bytes behind `path` as they come."""
        async with AsyncExitStack() as stack:
            response = await self._open(path, stack)
            yield ResultStream(response.content_length, self._pieces(response))

    async def _open(self, path: str, stack: AsyncExitStack) -> aiohttp.ClientResponse:
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT, sock_read=self.read_timeout)
        try:
            sending = self._send(self._connections.reading, "GET", path, timeout)
            response = await stack.enter_async_context(sending)
            if response.status != 200:
                raise (await read_refusal(response, self.key)).of_read()
        except FAILURES as error:
            raise self.unavailable(error) from error
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise Unavailable("the results came in an encoding nobody asked for")
        return response

    async def _pieces(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        size = 0
        pieces = response.content.iter_any()
        while True:
            try:
                piece = await anext(pieces, b"")
            except FAILURES as error:
                raise Unavailable(f"the results broke off after {size} bytes: {self.say(error)}") from error
            if not piece:
                break
            size += len(piece)
            yield piece

    async def _answer(self, sending: _Sending, decode: Callable[[bytes], _Answer]) -> _Answer:
        try:
            async with sending as response:
                if not 200 <= response.status < 300:
                    raise (await read_refusal(response, self.key)).of_read()
                return decoded(decode, await read_bounded(response))
        except (*FAILURES, Garbled) as error:
            raise self.unavailable(error) from error

    def _send(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        timeout: aiohttp.ClientTimeout,
        body: aiohttp.Payload | None = None,
    ) -> _Sending:
        return session.request(
            method,
            URL(self._base_url + path, encoded=True),
            data=body,
            headers=self._headers,
            timeout=timeout,
            allow_redirects=False,
        )

    def unavailable(self, error: Exception) -> Unavailable:
        return Unavailable(self.say(error))

    def say(self, error: Exception) -> str:
        """The failure in words that may be shown."""
        if isinstance(error, TimeoutError):
            return "the provider did not answer in time"
        return clean(f"no answer from the provider: {str(error) or type(error).__name__}", self.key)


def decoded(decode: Callable[[bytes], _Answer], body: bytes) -> _Answer:
    """Raises Garbled."""
    try:
        return decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Garbled(f"its answer makes no sense ({error})") from error


async def cancelled(
    ask: Callable[[], Awaitable[ProviderBatch]], get: Callable[[], Awaitable[ProviderBatch]]
) -> ProviderBatch:
    """The batch after `ask`; one that has ended, or is being cancelled already, as `get` shows it."""
    try:
        return await ask()
    except Unavailable as refused:
        if refused.status not in {400, 409}:
            raise
        batch = await get()
        if batch.status not in _ENDING:
            raise
        return batch


Page = tuple[list[ProviderBatch], bool]
"""Batches, and whether there are more."""


async def newest_first(
    read_page: Callable[[str | None], Awaitable[Page]], since: datetime, max_pages: int
) -> AsyncIterator[ProviderBatch]:
    """Batches of a listing, at least those created at or after `since`; `read_page` takes the last id seen.

    Unavailable when the listing has no end.
    """
    # some providers date their batches by whole seconds
    oldest = since.replace(microsecond=0)
    last: str | None = None
    seen = set[str]()
    for _ in range(max_pages):
        batches, has_more = await read_page(last)
        for batch in batches:
            yield batch
        if not batches or not has_more or _goes_before(oldest, batches):
            return
        last = batches[-1].id
        if last in seen:
            raise Unavailable("the provider's list of batches repeats itself")
        seen.add(last)
    raise Unavailable(f"the provider's list of batches has more than {max_pages} pages")


def _goes_before(since: datetime, page: list[ProviderBatch]) -> bool:
    """Whether the rest of a listing is older than `since`; never of a page that is not newest first."""
    moments = [batch.created_at for batch in page]
    newest_first = moments[0] > moments[-1] and all(left >= right for left, right in pairwise(moments))
    return newest_first and moments[-1] < since
