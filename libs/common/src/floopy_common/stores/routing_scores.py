"""Standings of models, as a projection that any replay leaves as it is.

Each segment adds one document per model, replaced and never incremented (`score_rollups`); a standing
(`routing_scores`) is computed anew from the latest of them. Both carry a mark for what is still to be done,
so that a crash between two steps loses nothing.
"""

import asyncio
import math
from array import array
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, Final

from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.domain.ids import new_lease_token, rollup_id
from floopy_common.events.scores import RoutingScore, ScoreStatus, routing_key
from floopy_common.stores.segment_runs import SEGMENTS_AT_ONCE, SegmentRun, rows_of

LATEST_SEGMENTS: Final = 200
"""What a standing is computed from: a model is judged by how it does now, and the sum stays cheap."""
_PENDING_AT_ONCE: Final = 500
_KEYS_AT_ONCE: Final = 50
"""Standings summed up by one query: each is a stage that the server plans for."""
_MAX_MODEL: Final = 256
"""A longer name is nobody's model and would make a key nobody wants."""

Key = tuple[str, str, str]
"""A standing's organisation, provider and model."""

_COMPARED: Final = ("lines", "quality_sum", "completed_at", "scorer_version")


_SCOPE: Final = ("batch_id", "segment", "org_id", "provider", "model")
_scope_of = itemgetter(*_SCOPE)


class ScoreTally:
    """What the scored rows of one segment add to each model, summed up as they are stored."""

    def __init__(self) -> None:
        self._groups: dict[tuple[Any, ...], _Scored] = {}

    def add(self, rows: Sequence[Document]) -> None:
        by_scope: dict[tuple[Any, ...], list[Document]] = {}
        for row in rows:
            if row["status"] == ScoreStatus.SCORED.value:
                by_scope.setdefault(_scope_of(row), []).append(row)
        for scope, alike in by_scope.items():
            self._groups.setdefault(scope, _Scored()).add(alike)

    def groups(self) -> list[Document]:
        """As the query of `RoutingScoreStore` has them."""
        return [
            {
                "_id": dict(zip(_SCOPE, scope, strict=True)),
                "lines": len(group.qualities),
                "quality_sum": math.fsum(group.qualities),
                "completed_at": group.completed_at,
                "scorer_version": group.scorer_version,
            }
            for scope, group in self._groups.items()
        ]


class _Scored:
    """All qualities are kept: sums of sums would differ in the last bit from what stored rows add up to."""

    def __init__(self) -> None:
        self.qualities = array("d")
        self.completed_at = datetime.min.replace(tzinfo=UTC)
        self.scorer_version = ""

    def add(self, rows: Sequence[Document]) -> None:
        self.qualities.extend([row["quality"] for row in rows])
        self.completed_at = max(self.completed_at, *{row["completed_at"] for row in rows})
        self.scorer_version = max(self.scorer_version, *{row["scorer_version"] for row in rows})


class RoutingScoreStore:
    """The collections `score_rollups` and `routing_scores`."""

    def __init__(self, mongo: Mongo) -> None:
        self._scores = mongo.collection("scores")
        self._rollups = mongo.collection("score_rollups")
        self._standings = mongo.collection("routing_scores")

    async def roll_up(self, runs: Sequence[SegmentRun]) -> bool:
        """Write what complete segments add to each model; False when that was there already."""
        changed = False
        for start in range(0, len(runs), SEGMENTS_AT_ONCE):
            changed |= await self._roll_up(runs[start : start + SEGMENTS_AT_ONCE])
        return changed

    async def _roll_up(self, runs: Sequence[SegmentRun]) -> bool:
        groups, known = await asyncio.gather(
            self._sums(runs),
            self._rollups.find_all({"$or": [_of_segment(run) for run in runs]}),
        )
        wanted = {rollup["_id"]: rollup for rollup in _rollups(groups)}
        for old in known:
            # a model that has no rows left keeps its document, so that its standing is computed once more
            wanted.setdefault(old["_id"], {**old, "lines": 0, "quality_sum": 0.0})
        before = {rollup["_id"]: rollup for rollup in known}
        changed = [
            {**rollup, "pending": True, "mark": new_lease_token()}
            for key, rollup in wanted.items()
            if _differs(before.get(key), rollup)
        ]
        await self._rollups.replace_each(changed)
        return bool(changed)

    async def _sums(self, runs: Sequence[SegmentRun]) -> list[Document]:
        """What the scored rows of each segment add up to, those read of which that is not known."""
        groups = [group for run in runs if isinstance(run.tally, ScoreTally) for group in run.tally.groups()]
        unknown = [run for run in runs if not isinstance(run.tally, ScoreTally)]
        if unknown:
            scored = {**rows_of(unknown), "status": ScoreStatus.SCORED.value}
            groups += await self._scores.aggregate([{"$match": scored}, {"$group": _GROUP}])
        return groups

    async def pending(self) -> list[Document]:
        """Rollups whose standings do not contain them yet."""
        return await self._rollups.find_all({"pending": True}, limit=_PENDING_AT_ONCE)

    async def settle(self, rollups: Sequence[Document]) -> None:
        """The standings contain these as they were read; one that has changed since stays pending."""
        await self._rollups.update_each(
            [
                ({"_id": rollup["_id"], "mark": rollup["mark"]}, {"$set": {"pending": False}})
                for rollup in rollups
            ]
        )

    async def totals(self, keys: Sequence[Key]) -> Mapping[Key, Document]:
        """What the latest rollups of each standing add up to: `lines`, `quality_sum`, `segments`, and the
        `scorer_version` of the last; a standing without any line is left out.
        """
        found: dict[Key, Document] = {}
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            first, *others = [_latest_of(key) for key in keys[start : start + _KEYS_AT_ONCE]]
            union = [{"$unionWith": {"coll": self._rollups.name, "pipeline": one}} for one in others]
            for total in await self._rollups.aggregate([*first, *union]):
                scope = total.pop("_id")
                found[scope["org_id"], scope["provider"], scope["model"]] = total
        return found

    async def standing(self, org_id: str, provider: str, model: str) -> RoutingScore | None:
        found = await self._standings.find_one({"_id": routing_key(org_id, provider, model)})
        return None if found is None else RoutingScore.model_validate(found)

    async def replace(self, score: RoutingScore) -> bool:
        """Store a standing that follows the version before it; False when another writer was faster."""
        key = routing_key(score.org_id, score.provider, score.model)
        document = {"_id": key, **score.model_dump(), "unpublished": True}
        if score.version == 1:
            return await self._standings.insert_new(document)
        before = {"_id": key, "version": score.version - 1}
        return await self._standings.update_one(before, {"$set": document}) == 1

    async def unpublished(self) -> list[RoutingScore]:
        found = await self._standings.find_all({"unpublished": True}, limit=_PENDING_AT_ONCE)
        return [RoutingScore.model_validate(document) for document in found]

    async def published(self, score: RoutingScore) -> None:
        """The broker has this version; one that came later, perhaps sent before it, is to be sent again."""
        key = routing_key(score.org_id, score.provider, score.model)
        if not await self._standings.update_one(
            {"_id": key, "version": score.version}, {"$set": {"unpublished": False}}
        ):
            await self._standings.update_one({"_id": key}, {"$set": {"unpublished": True}})


def _latest_of(key: Key) -> list[Document]:
    """The stages that sum up one standing's latest rollups, by their index."""
    org_id, provider, model = key
    return [
        {"$match": {"org_id": org_id, "provider": provider, "model": model}},
        {"$sort": {"completed_at": -1}},
        {"$limit": LATEST_SEGMENTS},
        {"$match": {"lines": {"$gt": 0}}},
        {"$group": _TOTAL},
    ]


_TOTAL: Final[Document] = {
    "_id": {name: f"${name}" for name in ("org_id", "provider", "model")},
    "lines": {"$sum": "$lines"},
    "quality_sum": {"$sum": "$quality_sum"},
    "segments": {"$sum": 1},
    "scorer_version": {"$first": "$scorer_version"},
}

_GROUP: Final[Document] = {
    "_id": {name: f"${name}" for name in ("batch_id", "segment", "org_id", "provider", "model")},
    "lines": {"$sum": 1},
    "quality_sum": {"$sum": "$quality"},
    "completed_at": {"$max": "$completed_at"},
    "scorer_version": {"$max": "$scorer_version"},
}


def _of_segment(run: SegmentRun) -> Document:
    """Matches the segment's rollups, one a model."""
    prefix = rollup_id(run.batch_id, run.segment.no)
    return {"_id": {"$gte": f"{prefix}:", "$lt": f"{prefix};"}}


def _rollups(groups: list[Document]) -> list[Document]:
    rollups = []
    for group in groups:
        scope: dict[str, Any] = group.pop("_id")
        if scope["model"] is None or len(scope["model"]) > _MAX_MODEL:
            continue
        segment = rollup_id(scope["batch_id"], scope["segment"])
        # a sum of doubles depends on their order in the last digits; quality has four
        group["quality_sum"] = round(group["quality_sum"], 4)
        rollups.append({"_id": f"{segment}:{scope['provider']}:{scope['model']}", **scope, **group})
    return rollups


def _differs(before: Document | None, after: Document) -> bool:
    return before is None or any(before[name] != after[name] for name in _COMPARED)
