"""OpenAI's native batch API over plain HTTP: one request a call, nothing repeated, nothing followed."""

import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from pydantic import SecretStr
from yarl import URL

from floopy_common.providers.http import (
    CONNECT_TIMEOUT,
    Connections,
    GuardedBody,
    StreamedBody,
    read_bounded,
)
from floopy_common.providers.openai.answers import clean, read_refusal
from floopy_common.providers.openai.wire import ATTEMPT_KEY, Batch, BatchPage, File, metadata_of, to_port
from floopy_common.providers.port import (
    Ambiguous,
    AttemptInput,
    CreateRequest,
    NotAccepted,
    NotFound,
    ProviderBatch,
    ProviderStatus,
    ResultStream,
    Unavailable,
)

PAGE_SIZE = 100
MAX_PAGES = 1_000
"""Twice what OpenAI lets an account create in the day an attempt is looked for."""
READ_TIMEOUT = 30.0
"""Seconds for a look, and for silence inside a download."""
SLOWEST_UPLOAD = 50_000
"""Bytes per second below which an upload is given up."""

_FAILURES = (aiohttp.ClientError, OSError, ValueError)
"""What aiohttp raises, a timeout and a URL or header nobody can send among it."""
_ENDING = frozenset({ProviderStatus.CANCELLING}) | {status for status in ProviderStatus if status.is_terminal}
_Answer = TypeVar("_Answer")
_Sending = AbstractAsyncContextManager[aiohttp.ClientResponse]

_decode_batch = msgspec.json.Decoder(Batch).decode
_decode_page = msgspec.json.Decoder(BatchPage).decode
_decode_file = msgspec.json.Decoder(File).decode


@dataclass(frozen=True)
class Access:
    """Where an account is reached, and with which key; the key goes nowhere else."""

    base_url: str
    api_key: SecretStr


class Garbled(Exception):  # noqa: N818 - says what happened
    """A success whose body is not what was asked for."""


class OpenAiBatches:
    """One account at OpenAI, or at a server that speaks its batch API; ValueError for an unusable URL."""

    def __init__(
        self,
        access: Access,
        connections: Connections,
        *,
        create_timeout: float,
        read_timeout: float = READ_TIMEOUT,
    ) -> None:
        self._base_url = str(URL(access.base_url.rstrip("/")))
        self._key = access.api_key.get_secret_value()
        self._connections = connections
        self._create_timeout = create_timeout
        self._read_timeout = read_timeout

    async def prepare(self, attempt: AttemptInput) -> str | None:
        """Upload the input as a file; its id."""
        body = _form(attempt)
        timeout = self._read_timeout + attempt.size / SLOWEST_UPLOAD
        try:
            async with self._write("POST", "/files", timeout, body) as response:
                if not 200 <= response.status < 300:
                    raise (await read_refusal(response, self._key)).of_prepare()
                return _decoded(_decode_file, await read_bounded(response)).id
        except (*_FAILURES, Garbled) as error:
            if body.failure is not None:
                raise body.failure from error
            raise self._unavailable(error) from error

    async def create(self, request: CreateRequest) -> ProviderBatch:
        """Create the batch; whoever knows this attempt's file or metadata will find it."""
        body = GuardedBody(_creation(request), "application/json", request.before_send)
        try:
            async with self._write("POST", "/batches", self._create_timeout, body) as response:
                if not 200 <= response.status < 300:
                    raise (await read_refusal(response, self._key)).of_create()
                return _decoded(_to_batch, await read_bounded(response))
        except (*_FAILURES, Garbled) as error:
            if body.refusal is not None:
                raise body.refusal from error
            if body.started:
                raise Ambiguous(self._say(error)) from error
            raise NotAccepted(self._say(error), status=None, retryable=True) from error

    async def find_attempt(
        self, attempt_id: str, input_file_id: str | None, since: datetime
    ) -> list[ProviderBatch]:
        """Every batch with the attempt's file, or with its id in the metadata."""
        found: dict[str, ProviderBatch] = {}
        async for batch in self._newest_first(int(since.timestamp())):
            same_file = input_file_id is not None and batch.input_file_id == input_file_id
            if same_file or batch.metadata.get(ATTEMPT_KEY) == attempt_id:
                found[batch.id] = batch
        return list(found.values())

    async def _newest_first(self, since: int) -> AsyncIterator[ProviderBatch]:
        """Batches, at least those created at or after `since`; Unavailable when the listing has no end."""
        after, seen = "", set[str]()
        for _ in range(MAX_PAGES):
            batches, has_more = await self._read(f"/batches?limit={PAGE_SIZE}{after}", _to_page)
            for batch in batches:
                yield batch
            if not batches or not has_more or _goes_before(since, batches):
                return
            last = batches[-1].id
            if last in seen:
                raise Unavailable("the provider's list of batches repeats itself")
            seen.add(last)
            after = f"&after={quote(last, safe='')}"
        raise Unavailable(f"the provider's list of batches has more than {MAX_PAGES} pages")

    async def get(self, provider_batch_id: str) -> ProviderBatch:
        """The batch as it is now."""
        return await self._read(_batch_path(provider_batch_id), _to_batch)

    async def cancel(self, provider_batch_id: str) -> ProviderBatch:
        """Ask to cancel; a batch that has ended, or is being cancelled already, is answered as it is."""
        try:
            return await self._call("POST", f"{_batch_path(provider_batch_id)}/cancel", _to_batch)
        except Unavailable as refused:
            if refused.status not in {400, 409}:
                raise
            batch = await self.get(provider_batch_id)
            if batch.status not in _ENDING:
                raise
            return batch

    @asynccontextmanager
    async def open_result(self, file_id: str) -> AsyncIterator[ResultStream]:
        """The file's bytes as they come."""
        async with AsyncExitStack() as stack:
            response = await self._open(f"{_file_path(file_id)}/content", stack)
            yield ResultStream(response.content_length, self._pieces(response))

    async def _open(self, path: str, stack: AsyncExitStack) -> aiohttp.ClientResponse:
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT, sock_read=self._read_timeout)
        try:
            sending = self._send(self._connections.reading, "GET", path, timeout)
            response = await stack.enter_async_context(sending)
            if response.status != 200:
                raise (await read_refusal(response, self._key)).of_read()
        except _FAILURES as error:
            raise self._unavailable(error) from error
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise Unavailable("the results came in an encoding nobody asked for")
        return response

    async def _pieces(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        size = 0
        pieces = response.content.iter_any()
        while True:
            try:
                piece = await anext(pieces, b"")
            except _FAILURES as error:
                raise Unavailable(f"the results broke off after {size} bytes: {self._say(error)}") from error
            if not piece:
                break
            size += len(piece)
            yield piece

    async def delete_input(self, file_id: str) -> None:
        """Remove an uploaded input; already gone is fine."""
        try:
            await self._call("DELETE", _file_path(file_id), bytes)
        except NotFound:
            return

    async def _read(self, path: str, decode: Callable[[bytes], _Answer]) -> _Answer:
        timeout = aiohttp.ClientTimeout(total=self._read_timeout, sock_connect=CONNECT_TIMEOUT)
        return await self._answer(self._send(self._connections.reading, "GET", path, timeout), decode)

    async def _call(self, method: str, path: str, decode: Callable[[bytes], _Answer]) -> _Answer:
        return await self._answer(self._write(method, path, self._read_timeout), decode)

    async def _answer(self, sending: _Sending, decode: Callable[[bytes], _Answer]) -> _Answer:
        """The answer of a call that may be made again; NotFound or Unavailable."""
        try:
            async with sending as response:
                if not 200 <= response.status < 300:
                    raise (await read_refusal(response, self._key)).of_read()
                return _decoded(decode, await read_bounded(response))
        except (*_FAILURES, Garbled) as error:
            raise self._unavailable(error) from error

    def _write(self, method: str, path: str, seconds: float, body: aiohttp.Payload | None = None) -> _Sending:
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_TIMEOUT)
        return self._send(self._connections.writing, method, path, timeout, body)

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
            headers={"Authorization": f"Bearer {self._key}"},
            timeout=timeout,
            allow_redirects=False,
        )

    def _unavailable(self, error: Exception) -> Unavailable:
        return Unavailable(self._say(error))

    def _say(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return "the provider did not answer in time"
        return clean(f"no answer from the provider: {str(error) or type(error).__name__}", self._key)


def _goes_before(since: int, page: list[ProviderBatch]) -> bool:
    """Whether the rest of a listing is older than `since`; never of a page that is not newest first."""
    moments = [batch.created_at.timestamp() for batch in page]
    newest_first = moments[0] > moments[-1] and all(left >= right for left, right in pairwise(moments))
    return newest_first and moments[-1] < since


def _decoded(decode: Callable[[bytes], _Answer], body: bytes) -> _Answer:
    try:
        return decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Garbled(f"its answer makes no sense ({error})") from error


def _to_batch(body: bytes) -> ProviderBatch:
    return to_port(_decode_batch(body))


def _to_page(body: bytes) -> tuple[list[ProviderBatch], bool]:
    page = _decode_page(body)
    return [to_port(batch) for batch in page.data], page.has_more


def _batch_path(provider_batch_id: str) -> str:
    return f"/batches/{quote(provider_batch_id, safe='')}"


def _file_path(file_id: str) -> str:
    return f"/files/{quote(file_id, safe='')}"


def _creation(request: CreateRequest) -> bytes:
    return msgspec.json.encode(
        {
            "input_file_id": request.input_file_id,
            "endpoint": request.endpoint,
            "completion_window": "24h",
            "metadata": metadata_of(request.attempt_id, request.nonce, request.metadata),
        }
    )


def _form(attempt: AttemptInput) -> StreamedBody:
    """The multipart form of an upload, its file part streamed."""
    filename = json.dumps(attempt.name)
    boundary = f"floopy-{secrets.token_hex(16)}"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename={filename}\r\n'
        "Content-Type: application/jsonl\r\n\r\n"
    )
    tail = f"\r\n--{boundary}--\r\n"
    content_type = f"multipart/form-data; boundary={boundary}"
    return StreamedBody(head.encode(), attempt.chunks, attempt.size, tail.encode(), content_type)
