"""OpenAI's native batch API over plain HTTP: one request a call, nothing repeated, nothing followed."""

import json
import secrets
from contextlib import AbstractAsyncContextManager
from urllib.parse import quote

import msgspec

from floopy_common.providers.answers import read_refusal
from floopy_common.providers.api import (
    FAILURES,
    READ_TIMEOUT,
    Access,
    Garbled,
    Page,
    ProviderApi,
    cancelled,
    decoded,
    newest_first,
)
from floopy_common.providers.http import Connections, GuardedBody, StreamedBody, read_bounded
from floopy_common.providers.openai.wire import ATTEMPT_KEY, Batch, BatchPage, File, metadata_of, to_port
from floopy_common.providers.port import (
    AttemptInput,
    CreateRequest,
    Found,
    NotFound,
    ProviderBatch,
    ResultStream,
    Sought,
)

PAGE_SIZE = 100
MAX_PAGES = 1_000
"""Twice what OpenAI lets an account create in the day an attempt is looked for."""
SLOWEST_UPLOAD = 50_000
"""Bytes per second below which an upload is given up."""

_decode_batch = msgspec.json.Decoder(Batch).decode
_decode_page = msgspec.json.Decoder(BatchPage).decode
_decode_file = msgspec.json.Decoder(File).decode


class OpenAiBatches:
    """One account at OpenAI, or at a server that speaks its batch API; ValueError for an unusable URL."""

    shows_attempts = True

    def __init__(
        self,
        access: Access,
        connections: Connections,
        *,
        create_timeout: float,
        read_timeout: float = READ_TIMEOUT,
    ) -> None:
        headers = {"Authorization": f"Bearer {access.api_key.get_secret_value()}"}
        self._api = ProviderApi(access, connections, headers=headers, read_timeout=read_timeout)
        self._create_timeout = create_timeout

    async def prepare(self, attempt: AttemptInput) -> str | None:
        """Upload the input as a file; its id."""
        body = _form(attempt)
        timeout = self._api.read_timeout + attempt.size / SLOWEST_UPLOAD
        try:
            async with self._api.write("POST", "/files", timeout, body) as response:
                if not 200 <= response.status < 300:
                    raise (await read_refusal(response, self._api.key)).of_prepare()
                return decoded(_decode_file, await read_bounded(response)).id
        except (*FAILURES, Garbled) as error:
            if body.failure is not None:
                raise body.failure from error
            raise self._api.unavailable(error) from error

    async def create(self, request: CreateRequest) -> ProviderBatch:
        """Create the batch; whoever knows this attempt's file or metadata will find it."""
        body = GuardedBody(_creation(request), "application/json", request.before_send)
        return await self._api.create("/batches", self._create_timeout, body, _to_batch)

    async def find_attempt(self, sought: Sought) -> Found:
        """Every batch with the attempt's file, or with its id in the metadata: certainly the attempt's."""
        found: dict[str, ProviderBatch] = {}
        async for batch in newest_first(self.list_page, sought.since, MAX_PAGES):
            same_file = sought.input_file_id is not None and batch.input_file_id == sought.input_file_id
            if same_file or batch.metadata.get(ATTEMPT_KEY) == sought.attempt_id:
                found[batch.id] = batch
        return Found(ours=list(found.values()))

    async def list_page(self, after: str | None) -> Page:
        """Batches newest first, as many as a page takes."""
        behind = "" if after is None else f"&after={quote(after, safe='')}"
        return await self._api.read(f"/batches?limit={PAGE_SIZE}{behind}", _to_page)

    async def get(self, provider_batch_id: str) -> ProviderBatch:
        """The batch as it is now."""
        return await self._api.read(_batch_path(provider_batch_id), _to_batch)

    async def cancel(self, provider_batch_id: str) -> ProviderBatch:
        """Ask to cancel; a batch that has ended, or is being cancelled already, is answered as it is."""
        path = f"{_batch_path(provider_batch_id)}/cancel"
        return await cancelled(
            lambda: self._api.call("POST", path, _to_batch), lambda: self.get(provider_batch_id)
        )

    def open_result(self, file_id: str) -> AbstractAsyncContextManager[ResultStream]:
        """The file's bytes as they come."""
        return self._api.download(f"{_file_path(file_id)}/content")

    async def delete_input(self, file_id: str) -> None:
        """Remove an uploaded input; already gone is fine."""
        try:
            await self._api.call("DELETE", _file_path(file_id), bytes)
        except NotFound:
            return


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
