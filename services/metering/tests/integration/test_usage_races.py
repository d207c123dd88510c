"""Two consumers that sum up one batch at the same time, on a real MongoDB."""

from collections.abc import Awaitable, Callable, Collection, Mapping

from typing_extensions import override

from floopy_common.chassis.clock import SystemClock
from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.domain.ids import new_batch_id, rollup_id
from floopy_common.domain.segment import Sink
from floopy_common.domain.settled import Settled
from floopy_common.events.lines import SegmentRef
from floopy_common.stores.caps import CapStore
from floopy_common.stores.ledger import SUM_FIELDS, LedgerStore
from floopy_common.stores.receipts import Confirmed, ReceiptStore
from floopy_common.stores.rollups import RollupStore
from floopy_common.stores.segment_runs import SegmentRun
from floopy_common.stores.usage_batches import PlannedStore, UsageBatchStore
from floopy_metering.core.usage import Accountant, UsagePorts


class _Interrupted(RollupStore):
    """Lets something happen between the sums and what is made of them, once."""

    def __init__(self, mongo: Mongo, meanwhile: Callable[[], Awaitable[object]]) -> None:
        super().__init__(mongo)
        self._meanwhile: Callable[[], Awaitable[object]] | None = meanwhile

    @override
    async def totals(self, batch_ids: Collection[str]) -> Mapping[str, Mapping[str, int]]:
        totals = await super().totals(batch_ids)
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return totals


def _accountant(mongo: Mongo, rollups: RollupStore) -> Accountant:
    ports = UsagePorts(
        plans=PlannedStore(mongo),
        ledger=LedgerStore(mongo),
        rollups=rollups,
        receipts=ReceiptStore(mongo),
        usage=UsageBatchStore(mongo),
    )
    return Accountant(ports, now=SystemClock().now, announce=lambda: None, hit=lambda _: None)


def _rollup(batch_id: str, segment: int, lines: int) -> Document:
    group = {**dict.fromkeys(SUM_FIELDS, 0), "lines": lines}
    return {"_id": rollup_id(batch_id, segment), "batch_id": batch_id, "segment": segment, "groups": [group]}


async def test_usage_has_every_replayed_line_whoever_writes_it(mongo: Mongo) -> None:
    batch_id = new_batch_id()
    batch: Document = {"_id": batch_id, "org_id": "org_1", "plan": {"month": "202611"}}
    await mongo.collection("batches").insert_new(batch)
    rollups, receipts = RollupStore(mongo), ReceiptStore(mongo)
    for segment in range(2):
        await rollups.replace_all([_rollup(batch_id, segment, 99)])
        run = SegmentRun("org_1", batch_id, 2, SegmentRef(segment, 1, 100, 100))
        await receipts.put_all(Sink.METERING, [Confirmed(run, 1)])
    quick = _accountant(mongo, rollups)
    await quick.record({batch_id: 2})

    async def meanwhile() -> None:
        await rollups.replace_all([_rollup(batch_id, 1, 100)])
        await quick.record({batch_id: 2})

    await rollups.replace_all([_rollup(batch_id, 0, 100)])
    (usage,) = await _accountant(mongo, _Interrupted(mongo, meanwhile)).record({batch_id: 2})

    stored = await mongo.collection("usage_batches").find_one({"_id": batch_id})
    assert stored is not None
    assert (usage["lines"], stored["lines"], stored["revision"]) == (200, 200, 2)


async def test_reservations_of_a_month_are_settled_together_and_only_once(mongo: Mongo) -> None:
    caps = CapStore(mongo)
    for batch_id, lines in (("batch_1", 100), ("batch_2", 50), ("batch_3", 7)):
        assert await caps.reserve("org_1", batch_id, lines, None, "202611")
    settled = [Settled("org_1", "batch_1", "202611", 90), Settled("org_1", "batch_2", "202611", 0)]

    await caps.settle_all(settled)
    await caps.settle_all(settled)

    month = await mongo.collection("caps").find_one({"_id": "org_1:202611"})
    assert month == {"_id": "org_1:202611", "used": 90, "held": 7, "reserved": {"batch_3": 7}}
    assert await caps.used("org_1", "202611") == 97
