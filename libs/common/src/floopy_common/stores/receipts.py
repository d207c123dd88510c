"""Receipts: a sink's word that every line of a segment is stored."""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from floopy_common.chassis.clock import Clock, SystemClock
from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.domain.ids import receipt_id
from floopy_common.domain.segment import Sink
from floopy_common.stores.segment_runs import SegmentRun


class Confirmed(NamedTuple):
    """A segment every line of which has its row, `parked` of which only say so.

    `unbroken`: one process has taken all of it, in order, from the first line to the last, and done with each
    line what comes before its receipt. Of a segment that was only found to be there nobody can say that.
    """

    run: SegmentRun
    parked: int
    unbroken: bool = False


class ReceiptStore:
    """The collection `receipts`, as the sinks write it: one per segment and sink."""

    def __init__(self, mongo: Mongo, clock: Clock | None = None) -> None:
        self._receipts = mongo.collection("receipts")
        self._clock = clock or SystemClock()

    async def put_all(self, sink: Sink, confirmed: Iterable[Confirmed]) -> None:
        """Confirm the segments; a receipt that says the same already stays as it is, `at` included."""
        receipts = [self._receipt(sink, one) for one in confirmed]
        known = await self._receipts.insert_missing(receipts)
        if not known:
            return
        wanted = {"_id": {"$in": [receipts[position]["_id"] for position in known]}}
        said = {
            old["_id"]: (old["lines"], old["parked"])
            for old in await self._receipts.find_all(wanted, {"lines": 1, "parked": 1})
        }
        for position in known:
            receipt = receipts[position]
            if said.get(receipt["_id"]) != (receipt["lines"], receipt["parked"]):
                # two writers replace one after the other, each with what it has counted
                await self._receipts.replace({"_id": receipt["_id"]}, receipt, upsert=True)

    async def settled(self, sink: Sink, runs: Iterable[SegmentRun]) -> set[str]:
        """The ids of those of the segments' receipts after which a repeat has nothing left to do."""
        ids = {receipt_id(run.batch_id, run.segment.no, sink.value): run.segment.lines for run in runs}
        found = await self._receipts.find_all(
            {"_id": {"$in": sorted(ids)}, "parked": 0, "unbroken": True}, {"lines": 1}
        )
        return {receipt["_id"] for receipt in found if receipt["lines"] == ids[receipt["_id"]]}

    def _receipt(self, sink: Sink, confirmed: Confirmed) -> Document:
        run = confirmed.run
        return {
            "_id": receipt_id(run.batch_id, run.segment.no, sink.value),
            "batch_id": run.batch_id,
            "sink": sink.value,
            "segment": run.segment.no,
            "lines": run.segment.lines,
            "parked": confirmed.parked,
            "unbroken": confirmed.unbroken,
            "at": self._clock.now(),
        }

    async def count(self, sink: Sink, batch_ids: Collection[str]) -> Mapping[str, int]:
        """How many segments of each batch the sink has confirmed; a batch without any is left out."""
        found = await self._receipts.aggregate(
            [
                {"$match": {"batch_id": {"$in": sorted(batch_ids)}, "sink": sink.value}},
                {"$group": {"_id": "$batch_id", "segments": {"$sum": 1}}},
            ]
        )
        return {row["_id"]: row["segments"] for row in found}
