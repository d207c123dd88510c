"""The batch of the OpenAI half: its record, its states and its wire form."""

import secrets
from enum import StrEnum
from pathlib import Path

import msgspec

from floopy_simulator.journal import Journal
from floopy_simulator.openai.models import resolve

KIND = "openai.batch"


class Status(StrEnum):
    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


DATED = tuple(status for status in Status if status != Status.VALIDATING)
TERMINAL = frozenset({Status.FAILED, Status.COMPLETED, Status.EXPIRED, Status.CANCELLED})


class LineError(msgspec.Struct, frozen=True):
    code: str | None
    message: str | None
    param: str | None = None
    line: int | None = None


class Totals(msgspec.Struct, kw_only=True):
    """What has been executed: `done` lines of the execution order, and the sizes of what they wrote."""

    done: int = 0
    completed: int = 0
    failed: int = 0
    output_bytes: int = 0
    error_bytes: int = 0
    ledger_bytes: int = 0
    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0


class Snapshot(msgspec.Struct, frozen=True):
    """Counts as they stood at a moment, for counts that lag."""

    at: float
    completed: int
    failed: int


class Batch(msgspec.Struct, kw_only=True):
    id: str
    seq: int
    key: str
    endpoint: str
    input_file_id: str
    completion_window: str
    metadata: dict[str, str] | None
    output_lifetime: int | None
    output_file_id: str
    """Chosen at creation: lines are written to it as they run, long before it is shown."""
    error_file_id: str
    created_at: float
    expires_at: float
    status: Status = Status.VALIDATING
    model: str | None = None
    errors: list[LineError] = msgspec.field(default_factory=list)
    total: int = 0
    tokens: int = 0
    """Enqueued prompt tokens, which count against the token limit until the batch ends."""
    totals: Totals = msgspec.field(default_factory=Totals)
    history: list[Snapshot] = msgspec.field(default_factory=list)
    times: dict[Status, float] = msgspec.field(default_factory=dict)
    pinned: bool = False
    """Moved by a test: progress waits for the next advance."""

    @property
    def is_terminal(self) -> bool:
        return self.status in TERMINAL

    def enter(self, status: Status, now: float) -> None:
        self.status = status
        self.times[status] = now

    def note_counts(self, now: float) -> None:
        self.history.append(Snapshot(now, self.totals.completed, self.totals.failed))


def new_batch_id() -> str:
    return f"batch_{secrets.token_hex(16)}"


def to_wire(batch: Batch, now: float, count_lag: float) -> dict[str, object]:
    """The public object; counts are those of `count_lag` seconds ago."""
    completed, failed = batch.totals.completed, batch.totals.failed
    if count_lag:
        completed, failed = _counts_at(batch, now - count_lag)
    ended = batch.status in TERMINAL
    failed_early = batch.status == Status.FAILED
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": None if batch.model is None else resolve(batch.model),
        "errors": {"object": "list", "data": batch.errors} if batch.errors else None,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batch.status.value,
        "output_file_id": batch.output_file_id if ended and batch.totals.output_bytes else None,
        "error_file_id": batch.error_file_id if ended and batch.totals.error_bytes else None,
        "created_at": int(batch.created_at),
        **{
            f"{status}_at": _seconds(batch.times.get(status))
            for status in Status
            if status != Status.VALIDATING
        },
        "expires_at": int(batch.expires_at),
        "request_counts": {
            "total": 0 if failed_early else batch.total,
            "completed": completed,
            "failed": failed,
        },
        "usage": _usage(batch.totals) if batch.times.get(Status.IN_PROGRESS) else None,
        "metadata": batch.metadata,
    }


def _seconds(at: float | None) -> int | None:
    return None if at is None else int(at)


def _counts_at(batch: Batch, at: float) -> tuple[int, int]:
    for snapshot in reversed(batch.history):
        if snapshot.at <= at:
            return snapshot.completed, snapshot.failed
    return 0, 0


def _usage(totals: Totals) -> dict[str, object]:
    return {
        "input_tokens": totals.prompt,
        "input_tokens_details": {"cached_tokens": totals.cached},
        "output_tokens": totals.completion,
        "output_tokens_details": {"reasoning_tokens": totals.reasoning},
        "total_tokens": totals.prompt + totals.completion,
    }


class BatchStore:
    """All batches in memory, each change written through to the journal."""

    def __init__(self, journal: Journal, directory: Path) -> None:
        self._journal = journal
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        decoder = msgspec.json.Decoder(Batch)
        self.batches = {batch.id: batch for batch in map(decoder.decode, journal.read_documents(KIND))}
        self._seq = max((batch.seq for batch in self.batches.values()), default=0)

    def input_path(self, batch: Batch) -> Path:
        """The input as it was at creation: deleting the file never hurts a running batch."""
        return self._directory / f"{batch.id}.input"

    def ledger_path(self, batch: Batch) -> Path:
        """One line per executed line, in order of execution."""
        return self._directory / f"{batch.id}.ledger"

    def next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def write(self, batch: Batch) -> None:
        self._journal.write_document(KIND, batch.id, batch.seq, msgspec.json.encode(batch))
        self.batches[batch.id] = batch

    def find(self, key: str, batch_id: str) -> Batch | None:
        batch = self.batches.get(batch_id)
        return batch if batch is not None and batch.key == key else None

    def all_of(self, key: str) -> list[Batch]:
        """Newest first."""
        return [batch for batch in reversed(list(self.batches.values())) if batch.key == key]

    def active(self) -> list[Batch]:
        return [batch for batch in self.batches.values() if not batch.is_terminal]

    def enqueued_tokens(self, batch: Batch) -> int:
        """Tokens of the other unfinished batches of the same key and model."""
        return sum(
            other.tokens
            for other in self.batches.values()
            if other is not batch
            and other.key == batch.key
            and other.model == batch.model
            and other.status in {Status.IN_PROGRESS, Status.FINALIZING, Status.CANCELLING}
        )
