"""Tries at creating a shard's provider batch, as the shard keeps them: what begins and what changes one."""

from collections.abc import Collection, Mapping
from typing import Any

from floopy_common.chassis.mongo import Document
from floopy_common.chassis.pipelines import assign
from floopy_common.domain.ids import new_attempt_id, new_nonce
from floopy_common.domain.shard import AttemptPhase

RESUMABLE = [AttemptPhase.INTENT.value, AttemptPhase.PREPARED.value]
"""Phases of an attempt that another claim goes on with: no provider batch of it can exist."""


def on_attempt(attempt_id: str, values: Mapping[str, Any], *, now: Collection[str] = ()) -> Document:
    """A stage that changes one attempt of a shard and no other."""
    changed: Document = {field: {"$literal": value} for field, value in values.items()}
    changed.update(dict.fromkeys(now, "$$NOW"))
    mine = {"$eq": ["$$this.id", {"$literal": attempt_id}]}
    merged = {"$mergeObjects": ["$$this", changed]}
    return {"$set": {"attempts": {"$map": {"input": "$attempts", "in": {"$cond": [mine, merged, "$$this"]}}}}}


def intend_stage() -> Document:
    """A stage that begins another attempt, unless the last can go on or the shard is to be split first."""
    attempt: Document = {
        "id": new_attempt_id(),
        "nonce": new_nonce(),
        "phase": AttemptPhase.INTENT.value,
        "input_file_id": None,
        "creating_at": None,
        "provider_batch_id": None,
        "looks": 0,
        "last_look_at": None,
        "resolution": None,
    }
    begun = {"$mergeObjects": [{"$literal": attempt}, {"intent_at": "$$NOW"}]}
    others: Document = {"$ifNull": ["$attempts", []]}
    split: Document = {"$ne": [{"$ifNull": ["$split", None]}, None]}
    goes_on = {"$or": [split, {"$in": [{"$last": "$attempts.phase"}, RESUMABLE]}]}
    counted = {"$add": [{"$ifNull": ["$attempt", 0]}, 1]}
    return assign(
        raw={
            "attempts": {"$cond": [goes_on, others, {"$concatArrays": [others, [begun]]}]},
            "attempt": {"$cond": [goes_on, "$attempt", counted]},
        }
    )
