"""Auditing what the sinks have confirmed."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from floopy_common.domain.auditing import Pause, Standing
from floopy_common.domain.segment import Sink
from floopy_reconciler.ports.shared import Document


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

    async def record(self, fields: Mapping[str, Any], next_in: float | Pause | None) -> None: ...


class Audits(Protocol):
    """Batches that are audited; `plans` holds the plan id of each batch that is asked about, by its id."""

    async def due(self, limit: int) -> list[Document]: ...

    async def survey(self, plans: Mapping[str, str]) -> dict[str, Standing]: ...

    async def put_off(self, batches: Sequence[Document], pause: Pause) -> None: ...

    async def claim(self, batches: Sequence[Document]) -> Sequence[AuditHold]: ...

    async def emitted(self, plans: Mapping[str, str], after: int, limit: int) -> list[Document]: ...

    async def unconfirmed(self, segments: Sequence[Document]) -> dict[str, set[Sink]]: ...

    async def confirm(self, ids: Collection[str]) -> None: ...

    async def emit_again(self, segment: Document) -> bool: ...

    async def reopen(self, batch_id: str, plan_id: str) -> int: ...


class Recounts(Protocol):
    async def segments_behind(self, plans: Mapping[str, str], after: int, limit: int) -> list[Document]: ...

    async def short(self, segments: Sequence[Document]) -> dict[str, set[Sink]]: ...

    async def void(self, batch_id: str, plan_id: str, no: int, sinks: Iterable[Sink]) -> None: ...


class AuditReports(Protocol):
    def balanced(self, seconds: float) -> None:
        """`seconds` since the batch ended."""
        ...

    def sent_again(self, segments: int) -> None: ...

    def miscounted(self, sink: Sink) -> None:
        """A sink had confirmed rows that are not there."""
        ...
