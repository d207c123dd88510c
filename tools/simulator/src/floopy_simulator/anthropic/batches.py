"""The message batch: its record, its states and its wire form."""

import secrets
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import msgspec

from floopy_simulator.journal import Journal

KIND = "anthropic.batch"
RESULTS_LIFETIME = 29 * 86400.0
"""Results are kept this long from the creation of their batch."""


class Status(StrEnum):
    IN_PROGRESS = "in_progress"
    CANCELING = "canceling"
    ENDED = "ended"


class Totals(msgspec.Struct, kw_only=True):
    """What has been executed: `done` requests of the execution order, and the sizes of what they wrote."""

    done: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0
    results_bytes: int = 0
    ledger_bytes: int = 0

    def count(self, kind: str, many: int = 1) -> None:
        """`kind`: a type of result."""
        setattr(self, kind, getattr(self, kind) + many)


class Batch(msgspec.Struct, kw_only=True):
    id: str
    seq: int
    key: str
    version: str
    betas: tuple[str, ...]
    total: int
    model: str | None
    """That of its first request: a batch may mix them."""
    created_at: float
    expires_at: float
    status: Status = Status.IN_PROGRESS
    totals: Totals = msgspec.field(default_factory=Totals)
    cancel_initiated_at: float | None = None
    ended_at: float | None = None
    deleted_at: float | None = None
    pinned: bool = False
    """Moved by a test: progress waits for the next advance."""

    @property
    def is_terminal(self) -> bool:
        return self.status == Status.ENDED

    def archived_at(self, now: float) -> float | None:
        """None while its results can be had."""
        end = self.created_at + RESULTS_LIFETIME
        return end if self.is_terminal and now >= end else None


def new_batch_id() -> str:
    return f"msgbatch_01{secrets.token_hex(11)}"


def to_wire(batch: Batch, now: float, root: str) -> dict[str, object]:
    """`root` is where the caller reaches the API; nothing is counted before the whole batch has ended."""
    totals, ended = batch.totals, batch.is_terminal
    archived_at = batch.archived_at(now)
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": batch.status.value,
        "request_counts": {
            "processing": 0 if ended else batch.total,
            "succeeded": totals.succeeded if ended else 0,
            "errored": totals.errored if ended else 0,
            "canceled": totals.canceled if ended else 0,
            "expired": totals.expired if ended else 0,
        },
        "ended_at": _moment(batch.ended_at),
        "created_at": _moment(batch.created_at),
        "expires_at": _moment(batch.expires_at),
        "archived_at": _moment(archived_at),
        "cancel_initiated_at": _moment(batch.cancel_initiated_at),
        "results_url": f"{root}/messages/batches/{batch.id}/results" if ended and not archived_at else None,
    }


def to_ledger(batch: Batch) -> dict[str, object]:
    """What happened to it so far, as nobody but the provider knows before its end."""
    totals = batch.totals
    return {
        "provider": "anthropic",
        "id": batch.id,
        "key": batch.key,
        "status": batch.status,
        "endpoint": "/v1/messages",
        "model": batch.model,
        "input_file_id": None,
        "metadata": None,
        "lines": batch.total,
        "executed": totals.done,
        "completed": totals.succeeded,
        "failed": totals.errored + totals.canceled + totals.expired,
        "canceled": totals.canceled,
        "expired": totals.expired,
        "created_at": batch.created_at,
        "canceling_at": batch.cancel_initiated_at,
        "ended_at": batch.ended_at,
        "deleted_at": batch.deleted_at,
    }


def _moment(at: float | None) -> str | None:
    """RFC 3339 with fractions."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class BatchStore:
    """All batches in memory, each change written through to the journal."""

    def __init__(self, journal: Journal, directory: Path) -> None:
        self._journal = journal
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        decoder = msgspec.json.Decoder(Batch)
        self.batches = {batch.id: batch for batch in map(decoder.decode, journal.read_documents(KIND))}
        self._seq = max((batch.seq for batch in self.batches.values()), default=0)

    def body_path(self, batch_id: str) -> Path:
        """A create as it comes in."""
        return self._directory / f"{batch_id}.body"

    def input_path(self, batch_id: str) -> Path:
        return self._directory / f"{batch_id}.input"

    def results_path(self, batch: Batch) -> Path:
        return self._directory / f"{batch.id}.results"

    def ledger_path(self, batch: Batch) -> Path:
        """One line per executed request, in order of execution."""
        return self._directory / f"{batch.id}.ledger"

    def next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def write(self, batch: Batch) -> None:
        self._journal.write_document(KIND, batch.id, batch.seq, msgspec.json.encode(batch))
        self.batches[batch.id] = batch

    def find(self, key: str, batch_id: str) -> Batch | None:
        batch = self.batches.get(batch_id)
        return batch if batch is not None and batch.key == key and batch.deleted_at is None else None

    def all_of(self, key: str) -> list[Batch]:
        """Newest first."""
        kept = [batch for batch in self.batches.values() if batch.key == key and batch.deleted_at is None]
        return kept[::-1]

    def active(self) -> list[Batch]:
        return [batch for batch in self.batches.values() if not batch.is_terminal]

    def queued(self, key: str) -> int:
        """Requests of unfinished batches."""
        return sum(batch.total for batch in self.active() if batch.key == key)
