"""The port to a provider's native batch API: what every client can do, and the only ways it may fail."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import msgspec

from floopy_common.domain.errors import FloopyError
from floopy_common.domain.line import LineAnswer


class ProviderStatus(StrEnum):
    """Where a provider batch is, in OpenAI's words whichever provider it is."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL_PROVIDER_STATUS


TERMINAL_PROVIDER_STATUS = frozenset(
    {ProviderStatus.COMPLETED, ProviderStatus.FAILED, ProviderStatus.EXPIRED, ProviderStatus.CANCELLED}
)


class BatchFault(msgspec.Struct, frozen=True):
    """One reason for which a provider refused a whole batch; `line` counts from 1 in the uploaded input."""

    code: str | None = None
    line: int | None = None
    message: str | None = None
    param: str | None = None


class ProviderBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A provider batch as the provider shows it."""

    id: str
    status: ProviderStatus
    created_at: datetime
    total: int = 0
    completed: int = 0
    failed: int = 0
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    model: str | None = None
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    errors: tuple[BatchFault, ...] = ()


class ProviderError(FloopyError):
    """What a provider call ended in instead of an answer; messages never carry credentials."""

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.retry_after = retry_after


class NotAccepted(ProviderError):  # noqa: N818 - says what happened
    """The provider certainly has nothing of this call; `retryable` when the same call can succeed later.

    `blocked`: not before somebody has seen to the account, its bill or its spending limit.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None,
        code: str | None = None,
        retry_after: float | None = None,
        retryable: bool = False,
        queue_full: bool = False,
        blocked: bool = False,
    ) -> None:
        super().__init__(message, status=status, retry_after=retry_after)
        self.code = code
        self.retryable = retryable
        self.queue_full = queue_full
        self.blocked = blocked

    @property
    def too_large(self) -> bool:
        """The input is more than the provider takes at once; a part of it may not be."""
        return self.status == 413


class Ambiguous(ProviderError):  # noqa: N818 - likewise
    """The provider may or may not have carried out the call."""


class Unavailable(ProviderError):  # noqa: N818 - likewise
    """A call that changes nothing that matters did not come through; try again later."""


class NotFound(ProviderError):  # noqa: N818 - likewise
    """The provider has nothing of that id."""


@dataclass(frozen=True)
class AttemptInput:
    """The input of one attempt; `chunks` yields exactly `size` bytes and is read once."""

    name: str
    size: int
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True)
class CreateRequest:
    """One create call; `metadata` comes on top of the two keys by which the attempt is recognised.

    `before_send` runs at the last moment before a byte of the request leaves, and of an `input`, which a
    create carries where `prepare` gave no file id, once more before its last byte: what it raises stops the
    call and is raised by it.
    """

    attempt_id: str
    nonce: str
    endpoint: str
    input_file_id: str | None
    before_send: Callable[[], None]
    metadata: dict[str, str] | None = None
    input: AttemptInput | None = None


Taken = Callable[[Collection[str]], Awaitable[set[str]]]
"""Those of some provider batches that are known to be somebody else's."""


@dataclass(frozen=True, kw_only=True)
class Sought:
    """What is known of an attempt whose provider batch, if there is one, was created at or after `since`.

    By `until` it certainly was. `lines` is how many requests it has; those that are `taken` are not it.
    """

    attempt_id: str
    nonce: str
    input_file_id: str | None
    lines: int
    since: datetime
    until: datetime
    taken: Taken


@dataclass
class Found:
    """`ours` are the attempt's for certain; of those that are only `possible` nothing says so, or not yet."""

    ours: list[ProviderBatch] = field(default_factory=list)
    possible: list[ProviderBatch] = field(default_factory=list)


@dataclass(frozen=True)
class ResultStream:
    """A results file; raises Unavailable while it is read when it ends before its announced length."""

    content_length: int | None
    chunks: AsyncIterator[bytes]


class BatchProvider(Protocol):
    """One account at one provider; no call is ever repeated by the client itself."""

    @property
    def shows_attempts(self) -> bool:
        """Whether a listed batch shows which attempt made it, so that creates need not take turns."""
        ...

    async def prepare(self, attempt: AttemptInput) -> str | None:
        """Upload the input; its file id, None where a create carries its input, which is then left unread.

        Raises NotAccepted when the provider refuses it, Unavailable when nobody knows: repeating is free.
        """
        ...

    async def create(self, request: CreateRequest) -> ProviderBatch:
        """Create the provider batch. Raises NotAccepted or Ambiguous, and what `before_send` raises."""
        ...

    async def find_attempt(self, sought: Sought) -> Found:
        """The provider batches of an attempt.

        Nothing found means that a whole listing was read and nothing was there, Unavailable that none was.
        """
        ...

    async def get(self, provider_batch_id: str) -> ProviderBatch:
        """Raises NotFound or Unavailable."""
        ...

    async def list_page(self, after: str | None) -> tuple[list[ProviderBatch], bool]:
        """A page of the account's batches, newest first, and whether there are more behind it.

        It begins with the newest, or right behind the batch of the id `after`. NotFound or Unavailable.
        """
        ...

    async def cancel(self, provider_batch_id: str) -> ProviderBatch:
        """Ask to cancel; the batch as it is then, also when it had ended before. NotFound or Unavailable."""
        ...

    def open_result(self, file_id: str) -> AbstractAsyncContextManager[ResultStream]:
        """Download verbatim bytes. Raises NotFound or Unavailable."""
        ...

    async def delete_input(self, file_id: str) -> None:
        """Remove an uploaded input; already gone is fine. Raises Unavailable."""
        ...


@runtime_checkable
class TellsModels(Protocol):
    """An account whose provider says what each of its models takes."""

    base_url: str

    async def list_models(self) -> list[dict[str, Any]]:
        """Raises NotFound or Unavailable."""
        ...


class ResultFormat(Protocol):
    """How one provider writes a line of its results; pure, so always the same."""

    def read_success(self, raw: bytes) -> str | None:
        """The line's custom_id where one look shows a success, as `parse_result` would find it.

        None of any other line, a success too: whoever asks reads it in full then.
        """
        ...

    def read_key(self, raw: bytes) -> str | None:
        """The line's custom_id; None when the line cannot be read."""
        ...

    def parse_result(self, raw: bytes) -> LineAnswer:
        """Whether the line succeeded and why not, without regard to its request.

        Raises Invalid when the line cannot be read.
        """
        ...

    def parse_answer(self, raw: bytes, asked: bytes, ended: int) -> tuple[LineAnswer, tuple[str, ...]]:
        """The answer to the request whose body is `asked`, and notes for an operator.

        `ended`: when the provider batch's results were complete, in Unix seconds. Raises Invalid when the
        line cannot be read.
        """
        ...


class ProviderDirectory(Protocol):
    """Who talks to which account."""

    async def for_account(self, account_id: str) -> BatchProvider:
        """Raises AccountMissing when the account is gone."""
        ...


class AccountMissing(FloopyError):  # noqa: N818 - likewise
    """No live provider account of that id."""
