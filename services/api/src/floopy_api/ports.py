"""What the API needs of the outside, as small as it needs it."""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol

from floopy_common.domain.batch import BatchStatus

Document = dict[str, Any]
"""A stored document; collections.py says what each holds."""

Now = Callable[[], datetime]
Monotonic = Callable[[], float]
Hit = Callable[[str], None]
"""Passes a named step at which a test may kill the process."""
Wake = Callable[[], None]
Order = Literal["asc", "desc"]


class ApiKeys(Protocol):
    async def find_by_key(self, plaintext: str) -> Document | None: ...


class Orgs(Protocol):
    async def get(self, org_id: str) -> Document | None: ...


class Accounts(Protocol):
    async def list_for_org(self, org_id: str) -> list[Document]: ...


class Caps(Protocol):
    async def used(self, org_id: str, month: str) -> int: ...


class ModelCatalogue(Protocol):
    """Which models a provider batches; `said` is what it told the account of them."""

    def list(self, provider: str, at: datetime, said: Sequence[Document] = ()) -> list[str]: ...

    def knows(self, provider: str, model: str, at: datetime, said: Sequence[Document] = ()) -> bool: ...


class AccountModels(Protocol):
    """What providers told accounts of their models, as far as they were asked."""

    async def of_accounts(self, account_ids: Iterable[str]) -> dict[str, list[Document]]: ...


class FileStore(Protocol):
    async def insert(self, file: Document) -> bool: ...

    async def get_owned(self, org_id: str, file_id: str) -> Document | None: ...

    async def find_position(self, org_id: str, file_id: str) -> Document | None: ...

    async def list_owned(
        self,
        org_id: str,
        *,
        purpose: str | None = None,
        limit: int = 0,
        order: Order = "desc",
        after: Document | None = None,
    ) -> list[Document]: ...

    async def delete_owned(self, org_id: str, file_id: str) -> bool: ...

    async def find_by_idempotency_key(self, org_id: str, api_key_id: str, key: str) -> Document | None: ...

    async def release_idempotency_key(self, file_id: str, key: str) -> None: ...

    async def purge(self, age: float) -> int: ...


class UploadStore(Protocol):
    async def insert(self, upload: Document) -> bool: ...

    async def get_owned(self, org_id: str, upload_id: str, *, parts: bool = False) -> Document | None: ...

    async def add_part(self, upload_id: str, part: Document, most_bytes: int, most_parts: int) -> bool: ...

    async def complete(self, upload_id: str, part_ids: Sequence[str], file: Document) -> Document | None: ...

    async def settle(self, upload_id: str) -> None: ...

    async def cancel(self, upload_id: str) -> Document | None: ...

    async def list_unsettled(self, limit: int) -> list[Document]: ...

    async def expire(self) -> int: ...

    async def purge(self, age: float) -> int: ...

    async def find_by_idempotency_key(self, org_id: str, api_key_id: str, key: str) -> Document | None: ...

    async def release_idempotency_key(self, upload_id: str, key: str) -> None: ...


class Pins(Protocol):
    """Keeps blobs for a batch, whatever becomes of the files that name them."""

    async def pin_all(self, blob_ids: Iterable[str], batch_id: str) -> bool: ...

    async def unpin(self, batch_id: str) -> int: ...


class Bytes(Protocol):
    def read_ranges(
        self, ranges: Iterable[Mapping[str, Any]], offset: int = 0, length: int | None = None
    ) -> AsyncGenerator[bytes, None]: ...


class BatchStore(Protocol):
    async def announce(self, batch: Document, *, event: str, by: str, now: datetime) -> bool: ...

    async def get_owned(self, org_id: str, batch_id: str) -> Document | None: ...

    async def list_owned(self, org_id: str, limit: int, after: Document | None = None) -> list[Document]: ...

    async def find_by_idempotency_key(self, org_id: str, api_key_id: str, key: str) -> Document | None: ...

    async def release_idempotency_key(self, batch_id: str, key: str) -> None: ...

    async def absorb_retry(
        self, api_key_id: str, request_hash: str, since: datetime, retry_count: int
    ) -> Document | None: ...

    async def find_newest_equal(self, api_key_id: str, request_hash: str) -> Document | None: ...

    async def join_later_sending(
        self, api_key_id: str, request_hash: str, since: datetime, count: int
    ) -> Document | None: ...

    async def transition(
        self,
        batch: Document,
        to: BatchStatus,
        *,
        now: datetime,
        by: str,
        fields: Mapping[str, Any] | None = None,
        event: str | None = None,
    ) -> Document | None: ...


class Looks(Protocol):
    """Pulls the next look at a batch's provider batches forward."""

    async def ask(self, batch_id: str, older_than: float) -> datetime | None: ...

    async def is_answered(self, batch_id: str, asked_at: datetime) -> bool: ...


class Summaries(Protocol):
    async def refresh(self, batch_id: str) -> object: ...
