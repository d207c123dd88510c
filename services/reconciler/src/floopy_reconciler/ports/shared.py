"""What most of the reconciler needs."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from floopy_common.domain.batch import BatchStatus

Document = dict[str, Any]
"""A stored document; collections.py says what each holds."""


Now = Callable[[], datetime]


Hit = Callable[[str], None]
"""Passes a named step at which a test may kill the process."""


Changed = Callable[[str], Awaitable[None]]
"""Says that something moved in the batch of this id."""


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
