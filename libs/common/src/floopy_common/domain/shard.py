"""The shard's life: the part of a batch that becomes exactly one provider batch."""

from datetime import UTC, datetime
from enum import StrEnum

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
