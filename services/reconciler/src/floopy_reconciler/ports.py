"""What the reconciler needs of the outside, as small as it needs it."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from floopy_common.domain.batch import BatchStatus, Ending
from floopy_common.domain.index import InputEntry
from floopy_common.domain.line import LineAnswer
from floopy_common.domain.segment import SegmentState, Sink
from floopy_common.domain.shard import ShardEnd
from floopy_common.providers.port import ResultStream

Document = dict[str, Any]
"""A stored document; collections.py says what each holds."""

Now = Callable[[], datetime]
Hit = Callable[[str], None]
"""Passes a named step at which a test may kill the process."""


class Archived(Protocol):
    """Archived results, readable at random."""

    def __len__(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes:
        """Raises BlobCorrupt when they end before that."""
        ...


class ResultFormat(Protocol):
    """How one provider writes a line of its results."""

    def read_key(self, raw: bytes) -> str | None:
        """The line's custom_id; None when the line cannot be read."""
        ...

    def parse_result(self, raw: bytes) -> LineAnswer:
        """Whether the line succeeded and why not. Raises Invalid when the line cannot be read."""
        ...

    def parse_answer(self, raw: bytes, asked: bytes, ended: int) -> tuple[LineAnswer, tuple[str, ...]]:
        """The answer to the body `asked`, and notes for an operator; `ended` in Unix seconds.

        Raises Invalid when the line cannot be read.
        """
        ...


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


class Hold(Protocol):
    """One shard, held by this worker alone; each call ends the hold or raises LeaseLost."""

    @property
    def shard(self) -> Document: ...

    async def settle(self, archive: Document | None, ended: ShardEnd) -> None: ...

    async def download_again(self, delay: float) -> None: ...

    async def let_go(self, delay: float) -> None: ...

    async def detach(self) -> None: ...


class SettlingStore(Protocol):
    def hold(self, shard: Document) -> AbstractAsyncContextManager[Hold | None]: ...

    async def requeue(self, shard: Document, delay: float, refusals: int) -> bool: ...

    async def refuse(self, shard: Document, refused: Document) -> bool: ...

    async def insert_retry(self, shard: Document) -> bool: ...


class Batches(Protocol):
    async def get(self, batch_id: str) -> Document | None: ...

    async def transition(
        self,
        batch: Document,
        to: BatchStatus,
        *,
        now: datetime,
        by: str,
        fields: Mapping[str, Any] | None = None,
        event: str | None = None,
        lease_token: str | None = None,
    ) -> Document | None: ...


class Turns(Protocol):
    async def take(self, seconds: float) -> Document | None: ...

    async def nudge(self, batch_id: str) -> None: ...

    async def set_ending(self, batch: Document, ending: Ending, at: datetime) -> bool: ...


class Summaries(Protocol):
    async def update(self, batch: Document) -> Document: ...


class EndingShards(Protocol):
    async def all_of(self, batch_id: str, plan_id: str) -> list[Document]: ...

    async def unsettled_segments(self, batch_id: str, plan_id: str) -> set[int]: ...

    async def end_unsubmitted(self, batch_id: str, plan_id: str, ended: ShardEnd) -> int: ...

    async def ask_cancel(self, batch_id: str, plan_id: str) -> int: ...

    async def end_overdue(self, batch_id: str, plan_id: str, ended: ShardEnd) -> int: ...


class SegmentProgress(Protocol):
    async def mark_ready(self, batch_id: str, plan_id: str, except_for: Collection[int]) -> int: ...

    async def count_open(self, batch_id: str, plan_id: str) -> int: ...

    async def written(self, batch_id: str, plan_id: str) -> list[Document]: ...


class LineIndexes(Protocol):
    async def read(self, index_blob: str, batch_id: str, plan_id: str, segments: Iterable[int]) -> bytes: ...

    async def starts(self, batch_id: str, plan_id: str, segments: Iterable[int]) -> list[tuple[int, int]]: ...


class OutputFiles(Protocol):
    async def insert_output(self, file: Document) -> bool: ...


class EndedBatches(Protocol):
    """Terminal batches of which something is still to be removed."""

    async def take(self, seconds: float) -> Document | None: ...

    async def rest(self, batch_id: str, stage: str, seconds: float | None) -> None: ...

    async def drop_content(self, batch_id: str) -> None: ...


class AttemptInputs(Protocol):
    async def leftovers(self, batch_id: str) -> list[tuple[str, str]]: ...


class Sweeps(Protocol):
    async def condemn_unreferenced(self, age: float) -> int: ...

    async def delete_condemned(self, grace: float = 0.0) -> int: ...

    async def condemn_orphan_chunks(self, age: float, after: str = "") -> str: ...

    async def remove_leaked_pins(self, age: float, after: str = "") -> tuple[int, str]: ...


class LookReports(Protocol):
    def looked(self, outcome: str, late: float | None) -> None:
        """`late`: seconds between the moment the look was due and its beginning, None if it was not due."""
        ...

    def listed(self, unchanged: int, late: Sequence[float]) -> None:
        """A page of a listing: how many shards it had no news of, and how late those were that were due."""
        ...


class SettleReports(Protocol):
    def settled(self, ended: ShardEnd) -> None: ...

    def detached(self) -> None: ...

    def retried(self, lines: int) -> None: ...

    def quarantined(self, kind: str, lines: int) -> None: ...

    def download_quarantined(self) -> None:
        """Results that several workers died of are left alone for a while."""
        ...


class BatchReports(Protocol):
    def ended(self, status: BatchStatus) -> None: ...


class SweepReports(Protocol):
    def swept(self, blobs: int) -> None: ...

    def leaked(self, pins: int) -> None: ...


class Received(Protocol):
    """A download that came through; whoever asked for it drops it in the end."""

    def view(self) -> AbstractContextManager[Archived]:
        """Its bytes, until it is kept or dropped."""
        ...

    async def keep(self) -> str:
        """Archive the bytes verbatim for the batch; the blob's id, by which they are then known."""
        ...

    async def drop(self) -> None:
        """Leave nothing behind of what was not kept."""
        ...


class Archives(Protocol):
    """Provider results on this machine's disk, and for good in blobs."""

    async def receive(self, stream: ResultStream, batch_id: str) -> Received:
        """Take a download of a batch's results.

        Raises Unavailable when it is not as long as announced, ResultsTooLarge when it never ends.
        """
        ...

    async def keep_index(self, packed: bytes, batch_id: str) -> str:
        """Keep a result index for a batch; the blob's id."""
        ...

    def open(self, blob_id: str) -> AbstractAsyncContextManager[Archived]:
        """An archived blob's bytes, fetched to disk when they are not there."""
        ...


Changed = Callable[[str], Awaitable[None]]
"""Says that something moved in the batch of this id."""


Record = tuple[bytes, bytes]
"""Key and value of an event."""
Formats = Callable[[str], ResultFormat]
"""How the provider of this name writes its results."""


class EventProducer(Protocol):
    async def send_batch(self, topic: str, partition: int, records: Sequence[Record]) -> tuple[int, int]:
        """First and last offset. Raises Transient when it is unknown what arrived, Invalid for a giant."""
        ...


class StoredBlob(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def length(self) -> int: ...

    @property
    def sha256(self) -> str: ...


class PartWriter(Protocol):
    """The bytes of one part; known as `blob` once its context was left without an error."""

    id: str

    @property
    def blob(self) -> StoredBlob: ...

    async def write(self, data: bytes) -> None: ...


class PartBlobs(Protocol):
    def writer(self, kind: str, pins: Iterable[str] = ()) -> AbstractAsyncContextManager[PartWriter]: ...


class SegmentInputs(Protocol):
    async def entries(self, index_blob: str, first: int, stop: int) -> list[InputEntry]: ...

    async def read(self, ranges: Iterable[Mapping[str, Any]], offset: int, length: int) -> bytes: ...


class SegmentHold(Protocol):
    """One segment, held by this worker alone; each call may raise LeaseLost."""

    @property
    def segment(self) -> Document: ...

    async def written(
        self, manifest: Document, counts: Mapping[str, int], usage: Mapping[str, int]
    ) -> None: ...

    async def emitted(self, partition: int, first_offset: int, last_offset: int) -> None: ...

    async def give_back(self, delay: float, *, failed: bool) -> None: ...


class SegmentClaim(Protocol):
    @property
    def segment(self) -> Document: ...

    def hold(self) -> AbstractAsyncContextManager[SegmentHold]: ...


class Segments(Protocol):
    async def claim(self, states: Collection[SegmentState], after: str) -> SegmentClaim | None: ...

    async def shards_of(self, segment: Document) -> list[Document]: ...


class SegmentReports(Protocol):
    def written(self, lines: int, seconds: float) -> None: ...

    def emitted(self, lines: int, seconds: float, *, again: bool) -> None: ...

    def differs(self) -> None:
        """A segment no longer renders to the bytes that were stored."""
        ...

    def stuck(self) -> None:
        """A segment could not be rendered at all."""
        ...

    def quarantined(self) -> None:
        """A segment that several workers died of is left alone for a while."""
        ...

    def noted(self, note: str, lines: int) -> None:
        """What the translation of answers had to say about lines."""
        ...


@dataclass(frozen=True)
class Offsets:
    """Where a topic's log begins and ends, by partition, and how far each sink has committed.

    `committed` and `end` are the offset of the next record.
    """

    begin: Mapping[int, int]
    end: Mapping[int, int]
    committed: Mapping[Sink, Mapping[int, int]]


class OffsetsReader(Protocol):
    async def read(self) -> Offsets | None:
        """None when they cannot be read now."""
        ...


class AuditHold(Protocol):
    """One batch, audited by this worker alone; each call may raise LeaseLost."""

    @property
    def batch(self) -> Document: ...

    async def renew(self) -> None: ...

    async def record(self, fields: Mapping[str, Any], next_in: float | None) -> None: ...


class Audits(Protocol):
    async def claim(self) -> AuditHold | None: ...

    async def answered(self, batch_id: str, plan_id: str) -> int: ...

    async def confirmed(self, batch_id: str) -> tuple[dict[Sink, int], int]: ...

    async def emitted(self, batch_id: str, plan_id: str, after: int, limit: int) -> list[Document]: ...

    async def unconfirmed(self, batch_id: str, segments: Sequence[Document]) -> dict[int, set[Sink]]: ...

    async def confirm(self, ids: Collection[str]) -> None: ...

    async def emit_again(self, segment: Document) -> bool: ...

    async def reopen(self, batch_id: str, plan_id: str) -> int: ...


class Recounts(Protocol):
    async def segments_behind(
        self, batch_id: str, plan_id: str, after: int, limit: int
    ) -> list[Document]: ...

    async def short(self, batch_id: str, segment: Document) -> set[Sink]: ...

    async def void(self, batch_id: str, plan_id: str, no: int, sinks: Iterable[Sink]) -> None: ...


class AuditReports(Protocol):
    def balanced(self, seconds: float) -> None:
        """`seconds` since the batch ended."""
        ...

    def sent_again(self, segments: int) -> None: ...

    def miscounted(self, sink: Sink) -> None:
        """A sink had confirmed rows that are not there."""
        ...
