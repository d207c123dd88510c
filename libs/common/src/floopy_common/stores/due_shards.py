"""Which shards are to be submitted, or looked for at their provider: the conditions, and in which order."""

from collections.abc import Collection

from floopy_common.chassis.mongo import Document
from floopy_common.chassis.pipelines import FREE_LEASE, due
from floopy_common.domain.shard import AttemptPhase, ShardState, WaitReason

_AMBIGUOUS = [AttemptPhase.CREATING.value, AttemptPhase.UNKNOWN.value]
"""Phases in which a provider batch may exist that we do not know of."""

_LAST_IS_AMBIGUOUS: Document = {"$in": [{"$last": "$attempts.phase"}, _AMBIGUOUS]}

_TURNS: tuple[Document, ...] = (
    {
        "state": ShardState.WAITING.value,
        "waiting.reason": {"$ne": WaitReason.OPERATOR.value},
        **due("waiting.next_attempt_at"),
    },
    {"state": ShardState.SUBMITTING.value, "$expr": {"$not": [_LAST_IS_AMBIGUOUS]}},
    {"state": ShardState.PLANNED.value, **due("submit_at")},
)
"""Those that wait before those a worker left behind before new ones; each is one walk along an index."""

SUBMITTABLE: Document = {"$and": [{"$or": list(_TURNS)}, FREE_LEASE]}
"""What may be claimed for a try: no provider batch of it can exist that nobody has recorded."""

UNCLEAR: Document = {
    "$and": [
        {
            "$or": [
                {"state": ShardState.SUBMIT_UNKNOWN.value, **due("search.next_at")},
                {"state": ShardState.SUBMITTING.value, "$expr": _LAST_IS_AMBIGUOUS},
            ]
        },
        FREE_LEASE,
    ]
}
"""What must be looked for at the provider before anything else is done with it."""

_DIED_TWICE: Document = {
    "$or": [{"lease.deaths": {"$gte": 2}}, {"lease.deaths": {"$gte": 1}, "lease.token": {"$ne": None}}]
}
"""Two workers in a row have not outlived it: a claim counts the death of whoever had the token before it."""

LETHAL: Document = {
    # these two are what the index needs to see
    "state": {"$in": [turn["state"] for turn in _TURNS]},
    "lease.deaths": {"$gte": 1},
    "$and": [_DIED_TWICE, SUBMITTABLE],
}
"""Submittable, but not beside anything else: whatever dies with it would seem to be as deadly."""

LETHAL_ORDER = [("lease.expires_at", 1), ("_id", 1)]

SHOWN = dict.fromkeys(("account_id", "batch_id", "plan_id", "provider", "state", "bytes"), 1)
"""What is shown of a shard to whoever decides whether to claim it."""

_OLDEST = [("queued_since", 1), ("created_at", 1), ("_id", 1)]
LOOK_ORDER = [("search.next_at", 1), ("_id", 1)]


def looks(criteria: Document, most: int) -> list[list[Document]]:
    """Pipelines for the shards of each turn that meet `criteria` and may have others beside them, by age."""
    return [
        [
            {"$match": {"$and": [turn, FREE_LEASE], "$nor": [_DIED_TWICE], **criteria}},
            {"$sort": dict(_OLDEST)},
            {"$limit": most},
            {"$project": SHOWN},
        ]
        for turn in _TURNS
    ]


def except_for(criteria: Document, accounts: Collection[str]) -> Document:
    return {**criteria, "account_id": {"$nin": list(accounts)}} if accounts else criteria
