"""The shard's life: the part of a batch that becomes exactly one provider batch."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

URGENT = datetime(1970, 1, 1, tzinfo=UTC)
"""As a shard's `poll.next_at`: by a look of its own and before all others; `poll.due_at` says since when."""


class ShardState(StrEnum):
    PLANNED = "planned"
    WAITING = "waiting"
    SUBMITTING = "submitting"
    SUBMIT_UNKNOWN = "submit_unknown"
    SUBMITTED = "submitted"
    CANCELLING = "cancelling"
    DOWNLOADING = "downloading"
    SETTLED = "settled"
    REFUSED = "refused"

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL_SHARD_STATES


TERMINAL_SHARD_STATES = frozenset({ShardState.SETTLED, ShardState.REFUSED})


class ShardEnd(StrEnum):
    """Why a terminal shard has no further answers to give."""

    FINISHED = "finished"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    LOST = "lost"


class ShardKind(StrEnum):
    """`refused`: lines that no provider is ever sent; it begins settled, with why as its answers."""

    PRIMARY = "primary"
    RETRY = "retry"
    REFUSED = "refused"


class AttemptPhase(StrEnum):
    """How far one try at creating a provider batch went; only `creating` is ambiguous after a crash."""

    INTENT = "intent"
    PREPARED = "prepared"
    CREATING = "creating"
    CREATED = "created"
    NOT_ACCEPTED = "not_accepted"
    UNKNOWN = "unknown"
    ABANDONED = "abandoned"


ADOPTED_UNPROVEN = "adopted_unproven"
"""Resolution of an attempt whose provider batch was found by its time and size alone."""


class WaitReason(StrEnum):
    """Why a shard is held; shown to the user as `floopy.queue.reason`."""

    RATE_LIMITED = "rate_limited"
    QUEUE_FULL = "provider_queue_full"
    UNAVAILABLE = "provider_unavailable"
    BLOCKED = "account_blocked"
    OPERATOR = "operator"


PLACE: Final = (
    *("batch_id", "org_id", "plan_id", "no"),
    *("provider", "account_id", "endpoint", "model", "group"),
)
"""Fields that a shard made of another's lines has in common with it."""

_NOT_YET: Final = (
    *("waiting", "lease", "submitted_at", "poll", "cancel_asked_at"),
    *("provider_batch_id", "provider_status", "provider_counts"),
    *("archive", "ended", "ended_at", "refused"),
)


def untried() -> dict[str, Any]:
    """What a stored shard says of its life before anything has happened to it."""
    return {
        "state": ShardState.PLANNED.value,
        "attempt": 0,
        "attempts": [],
        "downloads": 0,
        **dict.fromkeys(_NOT_YET),
    }
