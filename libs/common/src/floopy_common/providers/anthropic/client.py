"""Anthropic's Message Batches over plain HTTP: one request a call, nothing repeated, nothing followed."""

from contextlib import AbstractAsyncContextManager
from urllib.parse import quote

from floopy_common.domain.errors import FloopyError
from floopy_common.providers.answers import Refusal
from floopy_common.providers.anthropic.batch import read_batch, read_page
from floopy_common.providers.anthropic.models_api import Document, read_models
from floopy_common.providers.anthropic.request import BATCH_HEAD, BATCH_TAIL
from floopy_common.providers.anthropic.result import AnthropicResults
from floopy_common.providers.api import (
    READ_TIMEOUT,
    Access,
    Page,
    ProviderApi,
    cancelled,
    newest_first,
)
from floopy_common.providers.http import Connections, GuardedStream
from floopy_common.providers.port import (
    AttemptInput,
    CreateRequest,
    Found,
    NotAccepted,
    NotFound,
    ProviderBatch,
    ProviderError,
    ResultStream,
    Sought,
    Unavailable,
)

PAGE_SIZE = 1_000
MAX_PAGES = 100

_BATCHES = "/v1/messages/batches"
_MODELS = "/v1/models"
_MODEL_PAGES = 10
"""Of up to a thousand models: anything longer is no honest list."""
_MAX_LINE = 16 * 1024 * 1024
"""Bytes of results read to find out whose they are."""
_PAYMENT_REQUIRED = 402
_QUEUE_WORDS = "batch requests in processing"


class AnthropicBatches:
    """One account at Anthropic; ValueError for an unusable URL."""

    shows_attempts = False

    def __init__(
        self,
        access: Access,
        connections: Connections,
        *,
        version: str,
        create_timeout: float,
        read_timeout: float = READ_TIMEOUT,
    ) -> None:
        headers = {"x-api-key": access.api_key.get_secret_value(), "anthropic-version": version}
        self._api = ProviderApi(access, connections, headers=headers, read_timeout=read_timeout)
        self.base_url = access.base_url
        self._create_timeout = create_timeout
        self._results = AnthropicResults()

    async def prepare(self, attempt: AttemptInput) -> None:
        """Nothing to do: a create brings its input along."""

    async def create(self, request: CreateRequest) -> ProviderBatch:
        """Create the batch; the requests are streamed and nothing of it exists before the last byte."""
        return await self._api.create(
            _BATCHES,
            self._create_timeout,
            _body(request),
            read_batch,
            refused=_of_create,
            stopped=_of_input,
        )

    async def find_attempt(self, sought: Sought) -> Found:
        """Batches of the right size and time; those that have ended say by their results whose they are.

        A message batch carries nothing else of ours that it shows.
        """
        candidates = {
            batch.id: batch
            async for batch in newest_first(self.list_page, sought.since, MAX_PAGES)
            if batch.total == sought.lines and sought.since <= batch.created_at <= sought.until
        }
        taken = await sought.taken(candidates.keys())
        found = Found()
        for batch in candidates.values():
            if batch.id not in taken:
                await self._judge(batch, sought.nonce, found)
        return found

    async def _judge(self, batch: ProviderBatch, nonce: str, found: Found) -> None:
        """Adds the batch to what it belongs to, if to anything."""
        key = await self._first_key(batch.id) if batch.status.is_terminal else None
        if key is None:
            found.possible.append(batch)
        elif key.startswith(f"{nonce}-"):
            found.ours.append(batch)

    async def _first_key(self, batch_id: str) -> str | None:
        """The custom_id of the first result; None when there is none to be had any more."""
        line = bytearray()
        try:
            async with self.open_result(batch_id) as results:
                async for chunk in results.chunks:
                    line += chunk
                    if b"\n" in chunk or len(line) > _MAX_LINE:
                        break
        except NotFound:
            return None
        return self._results.read_key(bytes(line.partition(b"\n")[0]))

    async def list_page(self, after: str | None) -> Page:
        """Batches newest first, as many as a page takes."""
        behind = "" if after is None else f"&after_id={quote(after, safe='')}"
        return await self._api.read(f"{_BATCHES}?limit={PAGE_SIZE}{behind}", read_page)

    async def get(self, provider_batch_id: str) -> ProviderBatch:
        """The batch as it is now."""
        return await self._api.read(_path(provider_batch_id), read_batch)

    async def cancel(self, provider_batch_id: str) -> ProviderBatch:
        """Ask to cancel; a batch that has ended, or is being cancelled already, is answered as it is."""
        path = f"{_path(provider_batch_id)}/cancel"
        return await cancelled(
            lambda: self._api.call("POST", path, read_batch), lambda: self.get(provider_batch_id)
        )

    async def list_models(self) -> list[Document]:
        """Every model the account sees, newest first, as models_api.py reads it. NotFound or Unavailable."""
        models: list[Document] = []
        behind = ""
        for _ in range(_MODEL_PAGES):
            page, has_more = await self._api.read(f"{_MODELS}?limit={PAGE_SIZE}{behind}", read_models)
            models += page
            if not page or not has_more:
                return models
            behind = f"&after_id={quote(page[-1]['id'], safe='')}"
        raise Unavailable(f"the provider's list of models has more than {_MODEL_PAGES} pages")

    def open_result(self, file_id: str) -> AbstractAsyncContextManager[ResultStream]:
        """The results of the batch of this id, from the account's own host and no other."""
        return self._api.download(f"{_path(file_id)}/results")

    async def delete_input(self, file_id: str) -> None:
        """Nothing to do: there is no input apart from the batch."""


def _path(batch_id: str) -> str:
    return f"{_BATCHES}/{quote(batch_id, safe='')}"


def _body(request: CreateRequest) -> GuardedStream:
    if request.input is None:
        raise ValueError("a message batch is created with its input")
    return GuardedStream(
        BATCH_HEAD,
        request.input.chunks,
        request.input.size,
        BATCH_TAIL,
        "application/json",
        before_send=request.before_send,
    )


def _of_input(failure: Exception) -> Exception:
    """What stopped the request before its last byte: our own decision, or an input that cannot be read."""
    if isinstance(failure, FloopyError):
        return failure
    return NotAccepted(f"the input broke off: {failure!r}", status=None, retryable=True)


def _of_create(refusal: Refusal) -> ProviderError:
    """A 429 that names no time is a spending limit: it passes with the month, or when somebody raises it."""
    full = refusal.status == 429 and _QUEUE_WORDS in refusal.message.lower()
    blocked = refusal.status == _PAYMENT_REQUIRED or (
        refusal.status == 429 and refusal.retry_after is None and not full
    )
    if not full and not blocked:
        return refusal.of_create()
    return NotAccepted(
        refusal.message,
        status=refusal.status,
        code=refusal.code,
        retry_after=refusal.retry_after,
        retryable=True,
        queue_full=full,
        blocked=blocked,
    )
