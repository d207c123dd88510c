"""The batch's life: OpenAI's status lattice and what each status means."""

from enum import StrEnum

from floopy_common.domain.errors import IllegalTransition


class BatchStatus(StrEnum):
    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL

    @property
    def is_cancellable(self) -> bool:
        return self in {BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING}


class Ending(StrEnum):
    """Why a batch stops before every line had its answer."""

    CANCELLED = "cancelled"
    EXPIRED = "expired"


TERMINAL = frozenset({BatchStatus.FAILED, BatchStatus.COMPLETED, BatchStatus.EXPIRED, BatchStatus.CANCELLED})

_NEXT: dict[BatchStatus, frozenset[BatchStatus]] = {
    BatchStatus.VALIDATING: frozenset({BatchStatus.IN_PROGRESS, BatchStatus.FAILED, BatchStatus.CANCELLING}),
    # straight to a terminal status is never taken: `finalizing` is always seen in between,
    # except when nothing ran (`failed`)
    BatchStatus.IN_PROGRESS: frozenset({BatchStatus.FINALIZING, BatchStatus.FAILED, BatchStatus.CANCELLING}),
    BatchStatus.FINALIZING: frozenset(
        {BatchStatus.COMPLETED, BatchStatus.EXPIRED, BatchStatus.FAILED, BatchStatus.CANCELLING}
    ),
    BatchStatus.CANCELLING: frozenset({BatchStatus.CANCELLED}),
    BatchStatus.FAILED: frozenset(),
    BatchStatus.COMPLETED: frozenset(),
    BatchStatus.EXPIRED: frozenset(),
    BatchStatus.CANCELLED: frozenset(),
}


def check_transition(current: BatchStatus, target: BatchStatus) -> None:
    """Raise IllegalTransition unless OpenAI's lattice has the move."""
    if target not in _NEXT[current]:
        raise IllegalTransition(f"a batch cannot move from {current} to {target}")


def timestamp_field(status: BatchStatus) -> str | None:
    """The batch field that records when `status` was entered; None for `validating` (`created_at`)."""
    return None if status is BatchStatus.VALIDATING else f"{status.value}_at"
