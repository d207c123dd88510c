"""The ledger: one usage row per line."""

from collections.abc import Sequence
from datetime import UTC
from operator import itemgetter
from typing import Any, Final, Protocol

from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.domain.line import LineStatus
from floopy_common.stores.segment_runs import SEGMENTS_AT_ONCE, Segment, rows_of

GROUP_KEYS = ("hour", "provider", "model", "api_key_id", "endpoint")
"""What usage is told apart by; the organisation follows from the batch."""

_SUMMED = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "cost_nano_usd")
_NOT_RUN = [LineStatus.CANCELLED.value, LineStatus.EXPIRED.value]
_LARGEST: Final = 2**63 - 1
"""Beyond it the server goes on with floating point."""


class Tallied(Segment, Protocol):
    """A segment of which somebody may have counted the rows while they were stored."""

    @property
    def tally(self) -> object: ...


class LedgerTally:
    """The usage of one segment, summed up from its rows as they are stored: what `LedgerStore` would find."""

    def __init__(self) -> None:
        self._groups: dict[tuple[Any, ...], list[int]] = {}

    def add(self, rows: Sequence[Document]) -> None:
        by_key: dict[tuple[Any, ...], list[Document]] = {}
        for row in rows:
            by_key.setdefault(_key_of(row), []).append(row)
        for key, alike in by_key.items():
            sums = _sums(alike)
            known = self._groups.get(key)
            self._groups[key] = sums if known is None else [a + b for a, b in zip(known, sums, strict=True)]

    def groups(self) -> list[Document] | None:
        """As `LedgerStore.groups` has them; None when a sum is too large for that."""
        if any(abs(value) > _LARGEST for sums in self._groups.values() for value in sums):
            return None
        groups: list[Document] = []
        for (hour, *others), sums in self._groups.items():
            keys = zip(GROUP_KEYS, (hour.astimezone(UTC), *others), strict=True)
            groups.append({**dict(keys), **dict(zip(SUM_FIELDS, sums, strict=True))})
        return sorted(groups, key=_sort_key)


_key_of = itemgetter(*GROUP_KEYS)


def _sums(rows: Sequence[Document]) -> list[int]:
    """The figures of rows that are told apart by nothing, in the order of `SUM_FIELDS`."""
    statuses = [row["status"] for row in rows]
    billable = [row for row in rows if row["billable"]]
    return [
        len(rows),
        len(rows) - statuses.count(LineStatus.SUCCEEDED.value),
        sum(map(statuses.count, _NOT_RUN)),
        len(billable),
        *(sum([value for row in rows if (value := row[name]) is not None]) for name in _SUMMED),
        sum([row["cost_nano_usd"] is None for row in billable]),
    ]


class LedgerStore:
    """The collection `usage_ledger`, as far as it is summed up; the confirm step writes it."""

    def __init__(self, mongo: Mongo) -> None:
        self._ledger = mongo.collection("usage_ledger")

    async def groups(self, segments: Sequence[Tallied]) -> list[list[Document]]:
        """Of each segment, its usage by hour, provider, model, key and endpoint, in that order.

        Parked rows say nothing of usage and are left out. Where its tally tells nothing, 5,000 rows are read
        in 13 ms.
        """
        found = {_key(one): groups for one in segments if (groups := _told(one)) is not None}
        unknown = [one for one in segments if _key(one) not in found]
        found.update(await self._read(unknown))
        return [found[_key(one)] for one in segments]

    async def _read(self, segments: Sequence[Segment]) -> dict[tuple[str, int], list[Document]]:
        found: dict[tuple[str, int], list[Document]] = {_key(one): [] for one in segments}
        for start in range(0, len(segments), SEGMENTS_AT_ONCE):
            for row in await self._ledger.aggregate(_by_segment(segments[start : start + SEGMENTS_AT_ONCE])):
                key: Document = row.pop("_id")
                place = (key.pop("batch_id"), key.pop("segment"))
                if place in found:
                    found[place].append({**key, **row})
        return {key: sorted(groups, key=_sort_key) for key, groups in found.items()}


def _told(segment: Tallied) -> list[Document] | None:
    return segment.tally.groups() if isinstance(segment.tally, LedgerTally) else None


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
