"""What the submitter needs of the outside, as small as it needs it."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Protocol

from floopy_common.domain.money import Rates
from floopy_common.domain.shard import WaitReason
from floopy_common.providers.anthropic.capabilities import Models

Document = dict[str, Any]
"""A stored document; collections.py says what each holds."""

Now = Callable[[], datetime]
Hit = Callable[[str], None]
"""Passes a named step at which a test may kill the process."""


class Hold(Protocol):
    """One shard, held by this worker alone; every write raises LeaseLost once it is another's."""

    @property
    def shard(self) -> Document: ...

    @property
    def attempt(self) -> Document | None: ...

    @property
    def lost(self) -> bool: ...

    def seconds_left(self) -> float: ...

    def prepared(self, input_file_id: str | None) -> None: ...

    async def extend(self, seconds: float) -> None: ...

    async def fence(self, seconds: float) -> None: ...

    async def unfence(self) -> None: ...

    async def recorded(
        self, provider_batch_id: str, pending: Document, interval: float, resolution: str | None
    ) -> None: ...

    async def wait(self, reason: WaitReason, delay: float, *, anew: str | None = None) -> None: ...

    async def end(self, changes: Document, resolution: str) -> None: ...

    async def decide_split(self, split: Document, resolution: str) -> None: ...

    async def shrink(self, changes: Document) -> None: ...

    async def unknown(self) -> None: ...

    async def hand_back(self, delay: float) -> None: ...

    async def leave_alone(self, delay: float) -> None: ...

    async def no_look(self, delay: float) -> None: ...

    async def looked(self, delay: float) -> None: ...

    async def abandon(self, *, operator: bool) -> None: ...


class Claim(Protocol):
    """A shard taken for oneself."""

    @property
    def shard(self) -> Document: ...

    def hold(self) -> AbstractAsyncContextManager[Hold]: ...


class StoredShards(Protocol):
    async def get(self, shard_id: str) -> Document | None: ...


class DueShards(Protocol):
    async def due(
        self, most: int, *, without_accounts: Collection[str] = (), largest: int | None = None
    ) -> list[Document]: ...

    async def next_lethal(self) -> Document | None: ...

    async def defer(self, shard: Document, delay: float) -> None: ...

    async def discard(self, shard: Document) -> None: ...

    async def claim(self, shard: Document) -> Claim | None: ...


class NewShards(Protocol):
    async def insert(self, shard: Document) -> None: ...


class CreateTurn(Protocol):
    """The right to create on an account, nobody else's until it is given back or runs out."""

    def seconds_left(self) -> float: ...

    async def give_back(self) -> None: ...


class CreateTurns(Protocol):
    async def take(self, shard: Document, seconds: float, quiet_for: float) -> CreateTurn | None: ...


class UnclearShards(Protocol):
    async def next_unclear(self, without_accounts: Collection[str] = ()) -> Document | None: ...

    async def claim_search(self, shard: Document) -> Claim | None: ...


class AttachedBatches(Protocol):
    async def attached(self, provider_batch_ids: Collection[str]) -> set[str]: ...


class GivenUpAttempts(Protocol):
    async def give_up_ended(self) -> bool: ...

    async def next_due(self, without_accounts: Collection[str] = ()) -> Document | None: ...

    async def claim(self, shard: Document, delay: float) -> Document | None: ...

    async def finish(self, shard: Document, sweep_for: float) -> None: ...


class Orphans(Protocol):
    async def insert(self, shard: Document, attempt_id: str, provider_batch_id: str, reason: str) -> bool: ...

    async def known(self, account_id: str, provider_batch_ids: Collection[str]) -> set[str]: ...

    async def wanted(self, account_id: str, provider_batch_id: str) -> bool: ...

    async def claim_due(self, seconds: float) -> Document | None: ...

    async def seen(self, orphan: Document, status: str, counts: Document, delay: float | None) -> None: ...

    async def failed(self, orphan: Document, delay: float) -> None: ...


class BatchReader(Protocol):
    async def get(self, batch_id: str) -> Document | None: ...


class PlannedIndex(Protocol):
    async def read(self, index_blob: str, batch_id: str, plan_id: str, segments: Iterable[int]) -> bytes: ...


class InputReader(Protocol):
    def read_ranges(
        self, ranges: Iterable[Mapping[str, Any]], offset: int = 0, length: int | None = None
    ) -> AsyncGenerator[bytes, None]: ...


class SmallBlobs(Protocol):
    async def read_bytes(self, blob_id: str, offset: int = 0, length: int | None = None) -> bytes: ...


class OwnedFiles(Protocol):
    async def get_owned(self, org_id: str, file_id: str) -> Document | None: ...


class PinnedBlobs(Protocol):
    async def pin_all(self, blob_ids: Iterable[str], batch_id: str) -> bool: ...


class ProviderModels(Protocol):
    """What accounts' providers said of their models, for all processes."""

    async def get(self, account_id: str) -> Document | None: ...

    async def put(self, account_id: str, source: str, models: Sequence[Document], now: datetime) -> None: ...


class ModelSource(Protocol):
    """What the models of an account take."""

    async def of(self, account_id: str) -> Models: ...


class Announce(Protocol):
    """Makes the outbox entry that says a shard became a provider batch."""

    def __call__(self, batch: Document, shard_id: str) -> Document: ...


class Report(Protocol):
    """Counts what happened."""

    def moved(self, to: str) -> None: ...

    def submitted(self, seconds: float) -> None: ...

    def resolved(self, provider: str, resolution: str) -> None: ...

    def blocked(self, provider: str) -> None: ...

    def left_alone(self) -> None: ...


class ModelsReport(Protocol):
    """Counts how an account's models became known: `fetched`, `stored` or `failed`."""

    def models(self, outcome: str) -> None: ...


Changed = Callable[[str], Awaitable[None]]
"""Says that something moved in the batch of this id."""

Submitted = Callable[[Document, Document], Awaitable[None]]
"""Says that a shard of a batch, which was read a moment ago, is submitted."""


# Planning


class PlanHold(Protocol):
    """One batch, planned by this worker alone; `batch` is as it was claimed."""

    @property
    def batch(self) -> Document: ...

    @property
    def plan_id(self) -> str: ...

    @property
    def month(self) -> str: ...

    async def reserve(self, lines: int) -> bool: ...

    async def insert_segments(self, segments: Sequence[Document]) -> None: ...

    async def insert_shards(self, shards: Sequence[Document]) -> None: ...

    async def planned(self, fields: Mapping[str, Any], now: datetime) -> bool: ...

    async def refused(self, fields: Mapping[str, Any], now: datetime) -> bool: ...


class PlanClaim(Protocol):
    """A batch taken for planning."""

    @property
    def batch(self) -> Document: ...

    @property
    def plan_id(self) -> str: ...

    @property
    def tries(self) -> int: ...

    @property
    def is_first(self) -> bool: ...

    def hold(self) -> AbstractAsyncContextManager[PlanHold]: ...


class PlanQueue(Protocol):
    """Batches of one organisation that wait."""

    @property
    def org_id(self) -> str: ...

    @property
    def batch_ids(self) -> Sequence[str]: ...


class PlanStore(Protocol):
    async def waiting(self, after: str, most: int, *, bound: int, large: bool) -> Sequence[PlanQueue]: ...

    async def left_behind(self) -> Document | None: ...

    async def claim(self, batch_id: str, now: datetime, *, left: bool = False) -> PlanClaim | None: ...

    async def abandon(self, batch_id: str, plan_id: str) -> None: ...

    async def tidy(self, batch_id: str) -> None: ...


class PublishedBlob(Protocol):
    @property
    def id(self) -> str: ...


class IndexWriter(Protocol):
    @property
    def blob(self) -> PublishedBlob: ...

    async def write(self, data: bytes) -> None: ...


class IndexBlobs(Protocol):
    def writer(self, kind: str, pins: Iterable[str]) -> AbstractAsyncContextManager[IndexWriter]: ...


class PriceList(Protocol):
    @property
    def version(self) -> str: ...

    def batch_rates(self, provider: str, model: str, at: datetime) -> Rates: ...
