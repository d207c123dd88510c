"""What an answer's status means for a call, and what may be told of it."""

from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp
import msgspec

from floopy_common.chassis.redaction import redact
from floopy_common.providers.http import read_bounded, retry_after
from floopy_common.providers.port import Ambiguous, NotAccepted, NotFound, ProviderError, Unavailable

NEVER_ACCEPTED = frozenset({400, 401, 403, 404, 413, 422, 429})
"""Statuses that certainly left nothing behind; a redirect, which is never followed, is one more case."""
_QUEUE_CODES = frozenset({"token_limit_exceeded", "request_limit_exceeded"})
_QUEUE_WORDS = ("enqueued token limit", "enqueued request limit")
_MAX_MESSAGE = 500
_MAX_ERROR = 64 * 1024
_BY_STATUS = {
    401: "The provider does not accept the account's API key.",
    403: "The account's API key may not do this at the provider.",
}
"""Said in our words: what the provider says may show parts of the key."""


class _Detail(msgspec.Struct):
    message: str | None = None
    code: str | int | None = None


class _ErrorAnswer(msgspec.Struct):
    """Both providers put what went wrong into `error`."""

    error: _Detail


_decode_error = msgspec.json.Decoder(_ErrorAnswer).decode


@dataclass(frozen=True)
class Refusal:
    """An answer that is no success; `message` may be shown to the account's organisation."""

    status: int
    message: str
    code: str | None
    retry_after: float | None

    @property
    def redirects(self) -> bool:
        return 300 <= self.status < 400

    @property
    def queue_full(self) -> bool:
        return self.status in {400, 429} and (
            self.code in _QUEUE_CODES or any(words in self.message.lower() for words in _QUEUE_WORDS)
        )

    def not_accepted(self) -> NotAccepted | None:
        """None when the provider may have carried out the call."""
        if self.status not in NEVER_ACCEPTED and not self.redirects:
            return None
        return NotAccepted(
            self.message,
            status=self.status,
            code=self.code,
            retry_after=self.retry_after,
            retryable=self.status == 429 or self.queue_full,
            queue_full=self.queue_full,
        )

    def of_create(self) -> ProviderError:
        return self.not_accepted() or Ambiguous(
            self.message, status=self.status, retry_after=self.retry_after
        )

    def of_prepare(self) -> ProviderError:
        return self.not_accepted() or self.unavailable()

    def of_read(self) -> ProviderError:
        if self.status == 404:
            return NotFound(self.message, status=self.status)
        return self.unavailable()

    def unavailable(self) -> Unavailable:
        return Unavailable(self.message, status=self.status, retry_after=self.retry_after)


async def read_refusal(response: aiohttp.ClientResponse, api_key: str) -> Refusal:
    """What a response that is no success says; a body that cannot be read changes nothing."""
    detail = _Detail() if response.status < 400 else await _read_detail(response)
    code = None if detail.code is None else str(detail.code)
    return Refusal(
        status=response.status,
        message=_message(response.status, detail.message, api_key),
        code=code,
        retry_after=retry_after(response, datetime.now(UTC)),
    )


async def _read_detail(response: aiohttp.ClientResponse) -> _Detail:
    try:
        return _decode_error(await read_bounded(response, _MAX_ERROR)).error
    except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _Detail()


def _message(status: int, said: str | None, api_key: str) -> str:
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if said:
        return clean(said, api_key)
    if 300 <= status < 400:
        return f"The provider's address answers with a redirect (status {status}), which is not followed."
    return f"The provider answered with status {status}."


def clean(text: str, api_key: str) -> str:
    """`text` on one line, short, and without keys."""
    shown = redact(text.replace(api_key, "[redacted]"))
    return " ".join(shown.split())[:_MAX_MESSAGE]
