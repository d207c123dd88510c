"""What feedback needs of the outside, as small as it needs it."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from floopy_common.events.scores import RoutingScore

Document = dict[str, Any]
"""A stored document; collections.py says what each holds."""

Key = tuple[str, str, str]
"""A standing's organisation, provider and model."""

Hit = Callable[[str], None]
"""Passes a named step at which a test may kill the process."""


class Contexts(Protocol):
    async def get_many(self, batch_ids: Iterable[str]) -> dict[str, Document]:
        """`batches.context` by batch; a batch that does not exist is left out."""
        ...


class Blobs(Protocol):
    async def read_bytes(self, blob_id: str, offset: int = 0, length: int | None = None) -> bytes:
        """Raises BlobMissing or BlobCorrupt; anything else means that nobody knows."""
        ...


class Rows(Protocol):
    async def rows(self, line_ids: Collection[str]) -> list[Document]:
        """The score rows of these lines that are there, in line order."""
        ...


class Sender(Protocol):
    async def send(self, topic: str, key: bytes, value: bytes) -> None:
        """Return once the broker has the record."""
        ...

    async def send_batch(
        self, topic: str, partition: int, records: Sequence[tuple[bytes, bytes]]
    ) -> tuple[int, int]:
        """Return once the broker has them all, in order, on this partition."""
        ...


class Standings(Protocol):
    """Rollups of segments, and the standings computed from them."""

    async def pending(self) -> list[Document]: ...

    async def settle(self, rollups: Sequence[Document]) -> None: ...

    async def totals(self, keys: Sequence[Key]) -> Mapping[Key, Document]:
        """`lines`, `quality_sum`, `segments`, `scorer_version`; a standing without any line is left out."""
        ...

    async def standing(self, org_id: str, provider: str, model: str) -> RoutingScore | None: ...

    async def replace(self, score: RoutingScore) -> bool: ...

    async def unpublished(self) -> list[RoutingScore]: ...

    async def published(self, score: RoutingScore) -> None: ...
