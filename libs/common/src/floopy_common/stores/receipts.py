"""Receipts: a sink's word that every line of a segment is stored."""

from floopy_common.chassis.clock import Clock, SystemClock
from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.domain.ids import receipt_id
from floopy_common.domain.segment import Sink


class ReceiptStore:
    """The collection `receipts`, as the sinks write it: one per segment and sink."""

    def __init__(self, mongo: Mongo, clock: Clock | None = None) -> None:
        self._receipts = mongo.collection("receipts")
        self._clock = clock or SystemClock()

    async def put(self, sink: Sink, batch_id: str, segment: int, lines: int, parked: int) -> None:
        """Confirm the segment; one that says the same already stays as it is, `at` included."""
        receipt: Document = {
            "_id": receipt_id(batch_id, segment, sink.value),
            "batch_id": batch_id,
            "sink": sink.value,
            "segment": segment,
            "lines": lines,
            "parked": parked,
            "at": self._clock.now(),
        }
        if not await self._receipts.insert_new(receipt):
            said = {"_id": receipt["_id"], "lines": lines, "parked": parked}
            if await self._receipts.find_one(said, {"_id": 1}) is None:
                # two writers replace one after the other, each with what it has counted
                await self._receipts.replace({"_id": receipt["_id"]}, receipt, upsert=True)

    async def count(self, sink: Sink, batch_id: str) -> int:
        """Segments of the batch that the sink has confirmed."""
        return await self._receipts.count({"batch_id": batch_id, "sink": sink.value})
