"""A shard that its batch does not want, or not any more, costs nothing that can still be saved."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from waiting import eventually

from floopy_common.domain.shard import AttemptPhase


@pytest.mark.parametrize(
    "changes",
    [{"status": "validating"}, {"status": "cancelling", "ending": "cancelled"}, {"ending": "expired"}],
    ids=["not yet planned", "cancelled", "expired"],
)
async def test_nothing_is_sent_for_a_batch_that_is_not_in_progress(
    world, running, make_lines, simulator, changes
) -> None:
    batch_id = await world.plan(make_lines(1), await world.account())
    await world.update("batches", batch_id, **changes)
    other = await world.plan(make_lines(1), await world.account())

    async with running():
        await world.in_state(other, "submitted")
        await eventually(lambda: world.deferred(batch_id), what="a deferred shard")

    assert (await world.shard(batch_id))["state"] == "planned"
    assert len(await simulator.calls("files.create")) == 1


async def test_a_late_planners_shards_are_never_submitted(world, running, make_lines, simulator) -> None:
    batch_id = await world.plan(make_lines(1), await world.account())
    shard = await world.shard(batch_id)
    await world.update("shards", shard["_id"], plan_id="plan_of_a_planner_that_was_paused")

    async with running():
        await world.in_state(batch_id, "settled")

    assert await simulator.calls("files.create") == []


@asynccontextmanager
async def _cancelled_during(
    call: str, when: str, world: Any, running: Any, make_lines: Any
) -> AsyncIterator[str]:
    """A batch that is cancelled while the provider has not answered, before or after the call's effect."""
    held = await world.simulator.fault(call, {"kind": "hold", "when": when})
    batch_id = await world.plan(make_lines(1), await world.account())
    async with running():
        await eventually(lambda: world.holding(held), what="a call under way")
        await world.update("batches", batch_id, status="cancelling", ending="cancelled")
        await world.simulator.release(held)
        yield batch_id


async def test_a_cancel_during_the_upload_stops_before_the_create(
    world, running, make_lines, simulator
) -> None:
    async with _cancelled_during("files.create", "before", world, running, make_lines) as batch_id:
        await world.in_state(batch_id, "planned")

    assert await simulator.calls("batches.create") == []


async def test_an_upload_for_a_batch_that_was_cancelled_meanwhile_is_noted(
    world, running, make_lines
) -> None:
    async with _cancelled_during("files.create", "after", world, running, make_lines) as batch_id:
        (shard,) = await world.in_state(batch_id, "planned")

    (attempt,) = shard["attempts"]
    assert (attempt["phase"], attempt["input_file_id"] is None) == (AttemptPhase.PREPARED, False)


async def test_a_batch_that_was_cancelled_during_the_create_has_its_turn(
    world, running, make_lines, quiet
) -> None:
    async with _cancelled_during("batches.create", "after", world, running, make_lines) as batch_id:

        async def has_its_turn() -> bool:
            return bool((await world.batch(batch_id))["next_look_at"] < datetime(2000, 1, 1, tzinfo=UTC))

        await eventually(has_its_turn, what="a turn")
        await world.summary(batch_id, {"submitted": 1})


async def test_a_cancel_during_the_create_still_records_what_was_created(
    world, running, make_lines, quiet
) -> None:
    async with _cancelled_during("batches.create", "after", world, running, make_lines) as batch_id:
        await world.in_state(batch_id, "submitted")

    await world.assert_one_kept_for_each(batch_id)
