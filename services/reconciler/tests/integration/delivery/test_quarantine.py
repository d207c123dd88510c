"""A segment that kills whoever works on it is left alone for a while; it is never given up."""

from typing import Any

import pytest

from floopy_common.domain.segment import SegmentState
from floopy_common.stores.segments import SegmentClaim, SegmentStore


async def claim_first(delivery: Any) -> SegmentClaim:
    """The first segment, once the lease of whoever died has run out."""
    await delivery.mongo.collection("segments").update_many(
        {"lease": {"$ne": None}}, [{"$set": {"lease.expires_at": "$$NOW", "retry_at": None}}]
    )
    claim = await SegmentStore(delivery.mongo, "victim", 5.0).claim(
        [SegmentState.OPEN, SegmentState.WRITTEN], ""
    )
    assert claim is not None
    assert claim.segment["no"] == 0
    return claim


def killing_at(name: str, killed: type[BaseException]) -> Any:
    def hit(passed: str) -> None:
        if passed == name:
            raise killed(name)

    return hit


@pytest.mark.parametrize("name", ["segment.after_claim", "segment.after_send"])
async def test_a_segment_that_kills_its_workers_lets_others_pass(
    delivery: Any, killed: type[BaseException], name: str
) -> None:
    batch = await delivery.plan(lines=20, segment_lines=10)
    victim = delivery.worker(hit=killing_at(name, killed), pause=3_600.0)
    deaths = 0
    while "quarantined" not in delivery.reports.seen:
        claim = await claim_first(delivery)
        try:
            await victim.carry_out(claim)
        except killed:
            deaths += 1

    worker = delivery.worker(owner="heir")
    await worker.step()
    await delivery.until_in(batch, 1, "emitted")
    first = (await delivery.segments(batch))[0]
    assert deaths >= 3
    assert "stuck" in delivery.reports.seen
    assert (first["state"] == "emitted", first["lease"]["token"]) == (False, None)
    assert (first["retry_at"] - delivery.clock.now()).total_seconds() > 1_000

    await delivery.mongo.collection("segments").update_many({}, {"$set": {"retry_at": None}})
    first, second = await delivery.until(worker, batch, "emitted")

    assert first["lease"]["deaths"] == second["lease"]["deaths"] == 0


async def test_after_its_pause_it_has_another_try_and_then_a_longer_pause(
    delivery: Any, killed: type[BaseException]
) -> None:
    await delivery.plan(lines=10, segment_lines=10)
    victim = delivery.worker(hit=killing_at("segment.after_claim", killed), pause=100.0)
    tale = []
    for _ in range(7):
        try:
            await victim.carry_out(await claim_first(delivery))
            tale.append("left alone")
        except killed:
            tale.append("died")

    assert tale == ["died", "died", "died", "left alone", "died", "left alone", "died"]


async def test_what_is_given_back_is_no_death(delivery: Any) -> None:
    await delivery.plan(lines=10, segment_lines=10)
    for _ in range(5):
        claim = await claim_first(delivery)
        async with claim.hold() as hold:
            await hold.give_back(0, failed=True)

    assert (await claim_first(delivery)).segment["lease"]["deaths"] == 0
