"""One line's answer, whichever provider gave it, in the public API's terms."""

from enum import StrEnum

import msgspec

from floopy_common.domain.money import Usage


class LineStatus(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class LineError(msgspec.Struct, frozen=True, gc=False):
    """Why a line has no response of its own (`error` of an error-file line)."""

    code: str
    message: str


RETRYABLE_STATUS = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
"""Answers that say nothing about the request itself, so another try can succeed."""


class LineAnswer(msgspec.Struct, frozen=True, gc=False):
    """What the provider said of one line.

    `body` is the raw JSON of the response body (OpenAI shape), `error` the raw JSON of a top-level error
    when the provider gave no response. `said` is the raw JSON of the answer's text where that is at hand.
    """

    status_code: int | None
    request_id: str | None
    body: bytes | None
    error: bytes | None = None
    model: str | None = None
    usage: Usage | None = None
    finish_reason: str | None = None
    said: bytes | None = None

    @property
    def ok(self) -> bool:
        return self.status_code is not None and 200 <= self.status_code < 300 and self.body is not None

    @property
    def retryable(self) -> bool:
        return not self.ok and (self.status_code is None or self.status_code in RETRYABLE_STATUS)


BATCH_EXPIRED = LineError(
    "batch_expired", "This request could not be executed before the completion window expired."
)
BATCH_CANCELLED = LineError(
    "batch_cancelled", "This request was not executed because the batch was cancelled."
)
MISSING = LineError("missing_from_provider", "The provider's results do not contain this request.")
RESULTS_EXPIRED = LineError("results_expired", "The provider no longer holds the results of this request.")
TOO_LARGE = LineError("result_too_large", "The provider's result for this request is too large to return.")
