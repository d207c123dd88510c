"""A batch's turns, one at a time, with a clock that can be put forward."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from floopy_common.chassis.mongo import Mongo
from floopy_common.domain.batch import BatchStatus
from floopy_common.stores.batches import BatchStore
from floopy_common.stores.ending import EndingStore
from floopy_common.stores.files import FileStore
from floopy_common.stores.finishing import SegmentProgressStore, TurnStore
from floopy_common.stores.summaries import SummaryStore
from floopy_reconciler.core.agenda import Agenda
from floopy_reconciler.core.finalise import Finaliser
from floopy_reconciler.core.ready import ReadySegments
from floopy_reconciler.core.wind_up import Graces, Rhythm, Wakers, WindUp
from floopy_reconciler.metrics import PrometheusReports


class Clock:
    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


class Bench:
    """Turns of one batch, one at a time."""

    def __init__(self, mongo: Mongo, world: Any) -> None:
        self.mongo = mongo
        self.world = world
        self.clock = Clock()
        self.woken: list[str] = []
        segments, summaries, turns = SegmentProgressStore(mongo), SummaryStore(mongo), TurnStore(mongo)
        self.files = FileStore(mongo)
        self.batches = BatchStore(mongo)
        self.agenda = agenda = Agenda()
        self.offered = ReadySegments()
        self.wind_up = WindUp(
            agenda=agenda,
            turns=turns,
            shards=EndingStore(mongo),
            segments=segments,
            ready=self.offered,
            summaries=summaries,
            finaliser=Finaliser(
                batches=self.batches,
                agenda=agenda,
                segments=segments,
                files=self.files,
                reports=PrometheusReports(),
                relay=lambda: self.woken.append("outbox"),
                now=self.clock.now,
                hit=lambda _: None,
            ),
            graces=Graces(cancelled=60, expired=600),
            rhythm=Rhythm(0.0, 0.0),
            wakers=Wakers(lambda: self.woken.append("looks"), lambda: self.woken.append("segments")),
            now=self.clock.now,
            monotonic=time.monotonic,
        )

    async def turn(self, planted: Any) -> dict[str, Any]:
        """One turn of the only batch; the batch afterwards."""
        assert await self.wind_up.step()
        batch: dict[str, Any] = await self.world.batch(planted)
        return batch

    async def move(self, shard: dict[str, Any], **fields: Any) -> None:
        await self.mongo.collection("shards").update_one({"_id": shard["_id"]}, {"$set": fields})

    async def settle(self, shard: dict[str, Any], ended: str = "finished") -> None:
        await self.move(shard, state="settled", ended=ended, ended_at=datetime.now(UTC))

    async def refuse(self, shard: dict[str, Any], line: int | None = None) -> None:
        error = {"code": "model_not_found", "line": line, "message": "No.", "param": None}
        await self.move(
            shard, state="refused", ended="refused", refused={"code": "x", "message": "y", "errors": [error]}
        )

    async def ready(self, planted: Any) -> list[int]:
        rows = await self.mongo.collection("segments").find_all(
            {"batch_id": planted.id, "ready": True}, sort=[("no", 1)]
        )
        return [row["no"] for row in rows]

    async def write(self, planted: Any) -> None:
        """What the segment writer leaves of every ready segment: one output line, the rest errors."""
        for segment in planted.segments:
            parts: dict[str, Any] = {}
            for kind in ("output", "error"):
                text = f"{kind} of {segment['no']}\n".encode()
                blob = await self.world.blobs.put(kind, text, [planted.id])
                parts[kind] = {"blob": blob.id, "length": blob.length, "sha256": blob.sha256, "lines": 1}
            await self.mongo.collection("segments").update_one(
                {"_id": segment["_id"], "ready": True},
                {
                    "$set": {
                        "state": "written",
                        "manifest": parts,
                        "counts": {"completed": 1, "failed": segment["lines"] - 1},
                        "usage": {"input_tokens": 2, "output_tokens": 3, "total_tokens": 5},
                    }
                },
            )

    async def cancel(self, planted: Any) -> None:
        """As the api does."""
        now = datetime.now(UTC)
        fields = {"ending": "cancelled", "ending_at": now, "next_look_at": now}
        batch = await self.world.batch(planted)
        moved = await self.batches.transition(
            batch, BatchStatus.CANCELLING, now=now, by="floopy-api", fields=fields
        )
        assert moved is not None
