"""What one look at a provider batch means, given everything seen before."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from floopy_common.providers.port import BatchFault, ProviderBatch, ProviderStatus
from floopy_reconciler.ports import Document

_ORDER = {
    ProviderStatus.VALIDATING: 0,
    ProviderStatus.IN_PROGRESS: 1,
    ProviderStatus.FINALIZING: 2,
    ProviderStatus.CANCELLING: 3,
    ProviderStatus.COMPLETED: 4,
    ProviderStatus.FAILED: 4,
    ProviderStatus.EXPIRED: 4,
    ProviderStatus.CANCELLED: 4,
}
"""A status never takes the place of one with a higher rank, nor of another final one."""


@dataclass(frozen=True)
class Look:
    """The provider batch as far as it is known; never less than before."""

    status: ProviderStatus
    counts: Mapping[str, int]
    files: Mapping[str, str | None]
    errors: tuple[BatchFault, ...]
    changed: bool
    regressed: bool
    shows: bool = True
    """Whether the batch has anything new to show for it: of one that ended, its results say more."""

    @property
    def accounted(self) -> int:
        """Lines the provider says it has an answer for."""
        return self.counts["completed"] + self.counts["failed"]


def understand(shard: Document, seen: ProviderBatch) -> Look:
    """Merge a look into what the shard has recorded: status and counts never go back."""
    known = shard.get("provider_status")
    before = None if known is None else ProviderStatus(known)
    known_counts = shard.get("provider_counts") or {}
    counts, shrunk = _grown(known_counts, seen)
    backwards = before is not None and before is not seen.status and _ORDER[seen.status] <= _ORDER[before]
    status, files = seen.status, {"output": seen.output_file_id, "error": seen.error_file_id}
    if before is not None and backwards:
        status, files = before, shard.get("provider_files") or {"output": None, "error": None}
    return Look(
        status=status,
        counts=counts,
        files=files,
        errors=seen.errors,
        changed=status is not before or counts != shard.get("provider_counts"),
        regressed=backwards or shrunk,
        shows=not status.is_terminal and counts["completed"] != (known_counts.get("completed") or 0),
    )


_MOST = 2**53
"""A count beyond it is no count, and no number that can be stored."""


def _grown(before: Mapping[str, int], seen: ProviderBatch) -> tuple[dict[str, int], bool]:
    now = {"total": seen.total, "completed": seen.completed, "failed": seen.failed}
    grown = {name: max(min(value, _MOST), before.get(name) or 0) for name, value in now.items()}
    return grown, grown != now


_GROWTH = 1.5
"""Of the interval, with each look that showed nothing new."""


@dataclass(frozen=True)
class Pace:
    """Bounds of the interval between two looks, in seconds."""

    shortest: float
    longest: float

    def after(self, shard: Document, look: Look, floor: float = 0.0) -> float:
        """Sooner while something moves, later while nothing does; never below `floor`, which is a load's."""
        previous = (shard.get("poll") or {}).get("interval") or self.shortest
        if look.status.value != shard.get("provider_status"):
            return self._bounded(max(self.shortest, floor))
        return self._bounded(max(floor, previous / 2 if look.changed else previous * _GROWTH))

    def next_rung(self, previous: float | None, floor: float = 0.0) -> float:
        """The interval after nothing moved, one of a few: what is looked at together stays together."""
        rung = self.shortest
        while rung < self.longest and rung < (previous or 0.0) * 1.3:
            rung *= _GROWTH
        return self._bounded(max(floor, rung))

    def after_failure(self, failures: int) -> float:
        """Doubles with every failure in a row."""
        return self.jittered(self.shortest * 2.0 ** min(failures, 20))

    def jittered(self, seconds: float) -> float:
        """Within the bounds, a little more, so that looks begun together drift apart."""
        return self._bounded(seconds) * late()

    def _bounded(self, seconds: float) -> float:
        return min(max(seconds, self.shortest), self.longest)


def late() -> float:
    """A factor for one look's interval: never early, so that a list that shows it as well comes first."""
    return random.uniform(1.0, 1.1)  # noqa: S311 - spreads load, protects nothing


def early() -> float:
    """A factor for the intervals of all that one reading of a list shows."""
    return random.uniform(0.9, 1.0)  # noqa: S311 - likewise
