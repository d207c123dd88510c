"""The batch's summary: absolute figures over its shards and segments, kept so that a GET need not count."""

import asyncio
from collections import Counter

from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.domain.batch import TERMINAL
from floopy_common.domain.segment import WRITTEN_STATES
from floopy_common.domain.shard import ShardState
from floopy_common.providers.port import TERMINAL_PROVIDER_STATUS

_OF_SHARDS = dict.fromkeys(
    (
        "state",
        "lines",
        "provider_status",
        "provider_counts.completed",
        "archive.succeeded",
        "archive.lines",
    ),
    1,
)
_WRITTEN = {"state": {"$in": [state.value for state in WRITTEN_STATES]}}
_TERMINAL = {status.value for status in TERMINAL_PROVIDER_STATUS}


_LAST_POSITION = 1_000
"""Whoever stands behind is told this: counting further would cost each of many who wait as much as all."""


class SummaryStore:
    """Recomputes `batches.summary`; any number of writers may do so in any order."""

    def __init__(self, mongo: Mongo) -> None:
        self._batches = mongo.collection("batches")
        self._shards = mongo.collection("shards")
        self._segments = mongo.collection("segments")

    async def refresh(self, batch_id: str) -> Document | None:
        """Write the summary unless the batch has ended; its last summary then stays.

        {status, ending, shards: {state: n}} as they were found; None for a batch without a plan.
        """
        batch = await self._batches.find_one(
            {"_id": batch_id}, {"status": 1, "ending": 1, "plan.plan_id": 1, "plan.total": 1, "summary": 1}
        )
        if batch is None or batch.get("plan") is None:
            return None
        summary = await self.update(batch)
        return {"status": batch["status"], "ending": batch.get("ending"), "shards": summary["shards"]}

    async def update(self, batch: Document) -> Document:
        """Likewise for a planned batch that was read just now; the summary."""
        batch_id = batch["_id"]
        summary = await self.compute(batch_id, batch["plan"]["plan_id"], batch["plan"]["total"])
        completed = summary["counts"]["completed"]
        failed = summary["counts"]["failed"]
        changes = {f"summary.{key}": value for key, value in summary.items() if key != "counts"}
        if _shows(batch["summary"], summary):
            return summary
        await self._batches.update_one(
            {"_id": batch_id, "status": {"$nin": [status.value for status in TERMINAL]}},
            # progress never falls, whichever writer comes last
            {
                "$set": changes,
                "$max": {"summary.counts.completed": completed, "summary.counts.failed": failed},
            },
        )
        return summary

    async def compute(self, batch_id: str, plan_id: str, total: int) -> Document:
        """{shards: {state: n}, queue: {position, reason, next_attempt_at} | None,
        counts: {completed, failed}}.
        """
        scope = {"batch_id": batch_id, "plan_id": plan_id}
        # read, not counted by the server: calls like these of many batches are one
        shards, segments = await asyncio.gather(
            self._shards.find_all(scope, _OF_SHARDS),
            self._segments.find_all({**scope, **_WRITTEN}, {"counts": 1}),
        )
        states = Counter(shard["state"] for shard in shards)
        written = sum(segment["counts"]["completed"] for segment in segments)
        failed = sum(segment["counts"]["failed"] for segment in segments)
        completed = max(written, min(sum(answered(shard) for shard in shards), total - failed))
        return {
            "shards": dict(states),
            "queue": await self._queue(scope) if ShardState.WAITING.value in states else None,
            "counts": {"completed": completed, "failed": failed},
        }

    async def _queue(self, scope: Document) -> Document | None:
        """The first waiting shard's place among all that wait for the same account."""
        waiting = {"state": ShardState.WAITING.value}
        first = await self._shards.find_one({**scope, **waiting}, sort=[("waiting.since", 1)])
        if first is None:
            return None
        since = first["waiting"]["since"]
        earlier = {"account_id": first["account_id"], **waiting, "waiting.since": {"$lt": since}}
        ahead = len(await self._shards.find_all(earlier, {"_id": 1}, limit=_LAST_POSITION - 1))
        return {
            "position": ahead + 1,
            "reason": first["waiting"]["reason"],
            "next_attempt_at": first["waiting"]["next_attempt_at"],
        }


def _shows(kept: Document, summary: Document) -> bool:
    """Whether writing the summary would change nothing."""
    same = all(kept.get(key) == value for key, value in summary.items() if key != "counts")
    counts: dict[str, int] = kept["counts"]
    return same and all(counts[name] >= count for name, count in summary["counts"].items())


def answered(shard: Document) -> int:
    """Lines of a shard that have succeeded: by its results once they are here, by the provider's word before.

    Of a provider batch that has ended its results say more than its counts, and they come next. So what was
    shown while it ran stands meanwhile, and a count that was true to the end is never taken back.
    """
    claimed: int = min((shard.get("provider_counts") or {}).get("completed") or 0, shard["lines"])
    if ShardState(shard["state"]).is_terminal:
        archive = shard.get("archive") or {}
        succeeded: int | None = archive.get("succeeded")
        return min(claimed, archive.get("lines") or 0) if succeeded is None else succeeded
    return 0 if shard.get("provider_status") in _TERMINAL else claimed
