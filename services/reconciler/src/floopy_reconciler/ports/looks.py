"""Looking at provider batches, one by one and by reading lists."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from floopy_reconciler.ports.shared import Document


class LooksStore(Protocol):
    async def due_looks(self, limit: int, without_accounts: Collection[str] = ()) -> list[Document]: ...

    async def claim_look(self, shard_id: str, seconds: float) -> Document | None: ...

    def keeping(self, shard: Document, seconds: float) -> AbstractAsyncContextManager[None]: ...

    async def record_look(
        self,
        shard: Document,
        *,
        status: str,
        counts: Mapping[str, int],
        files: Mapping[str, str | None] | None,
        interval: float,
        answered: bool = True,
        began_at: datetime | None = None,
    ) -> Document | None: ...

    async def answer_look(self, shard: Document) -> None: ...

    async def record_failure(self, shard: Document, delay: float, *, lost: bool = False) -> None: ...

    async def cancel_accepted(self, shard: Document) -> None: ...


class ListingHold(Protocol):
    """An account's listing, read by this worker alone; each last write ends the hold or raises LeaseLost."""

    @property
    def account_id(self) -> str: ...

    @property
    def began_at(self) -> datetime: ...

    @property
    def failures(self) -> int: ...

    @property
    def marks(self) -> list[Document]: ...

    def now(self) -> datetime: ...

    async def finish(self, pages: int, marks: Sequence[Document]) -> None: ...

    async def fail(self, delay: float, *, wait: bool) -> None: ...

    async def let_go(self) -> None: ...


class ListingClaim(Protocol):
    def hold(self) -> AbstractAsyncContextManager[ListingHold]: ...


class ListingTurns(Protocol):
    async def held(self) -> set[str]: ...

    async def due_accounts(self, without: Collection[str] = ()) -> dict[str, int]: ...

    async def crowd(self, many: int) -> tuple[int, dict[str, int]]: ...

    async def claim(self, account_id: str, due_shards: int) -> ListingClaim | None: ...


class ListingShards(Protocol):
    """Open shards of one account, many at a time."""

    async def oldest_open(self, account_id: str) -> datetime | None: ...

    async def open_among(self, account_id: str, provider_batch_ids: Collection[str]) -> list[Document]: ...

    async def unchanged(
        self,
        account_id: str,
        provider_batch_ids: Collection[str],
        *,
        listed_at: datetime,
        interval: float,
        delay: float,
    ) -> None: ...

    async def hurry_unseen(self, account_id: str, began_at: datetime) -> int: ...


class LookReports(Protocol):
    def looked(self, outcome: str, late: float | None) -> None:
        """`late`: seconds between the moment the look was due and its beginning, None if it was not due."""
        ...

    def listed(self, unchanged: int, late: Sequence[float]) -> None:
        """A page of a listing: how many shards it had no news of, and how late those were that were due."""
        ...
