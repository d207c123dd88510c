"""Stages and conditions by the server's clock, in which nothing that a user wrote is ever evaluated."""

from collections.abc import Iterable, Mapping
from typing import Any

from floopy_common.chassis.mongo import Document


def assign(
    values: Mapping[str, Any] | None = None,
    *,
    now: Iterable[str] = (),
    raw: Mapping[str, Any] | None = None,
) -> Document:
    """One `$set` stage of a pipeline update.

    `values` are stored as they are, even strings that begin with `$`; the fields of `now` get the server's
    clock; `raw` holds expressions that are to be evaluated.
    """
    stage: Document = {field: {"$literal": value} for field, value in (values or {}).items()}
    stage.update(dict.fromkeys(now, "$$NOW"))
    stage.update(raw or {})
    return {"$set": stage}


def append(field: str, *values: Any) -> Document:
    """A stage that adds `values` to the end of the array `field`, which may be missing."""
    return {"$set": {field: {"$concatArrays": [{"$ifNull": [f"${field}", []]}, {"$literal": list(values)}]}}}


def expire_in(seconds: float) -> Document:
    """The expression for the server's clock plus `seconds`."""
    return {"$add": ["$$NOW", int(seconds * 1000)]}


FREE_LEASE: Document = {
    "$expr": {
        "$or": [
            {"$eq": [{"$ifNull": ["$lease", None]}, None]},
            {"$lte": ["$lease.expires_at", "$$NOW"]},
        ]
    }
}
"""Matches documents nobody holds; an expired lease is simply claimable again."""


def due(field: str) -> Document:
    """Matches documents whose `field` is missing or not in the future, by the server's clock."""
    # a missing value sorts before every date; an $ifNull around the field would keep indexes from being used
    return {"$expr": {"$lte": [f"${field}", "$$NOW"]}}
