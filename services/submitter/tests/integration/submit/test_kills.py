"""The real process dies by SIGKILL at every named step; its successor leaves one kept batch a shard."""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from waiting import eventually

from floopy_submitter.main import FAILPOINTS

LOST_ANSWER = {"kind": "drop", "when": "after"}
NEVER_ARRIVED = {"kind": "drop", "when": "before"}
LIMITED = {"kind": "status", "status": 429}
REFUSED = {"kind": "status", "status": 400}


@dataclass(frozen=True)
class Story:
    """What must happen at the provider for the step to be reached, and how it ends."""

    fault: dict[str, Any] | None = None
    list_lag: float = 0
    end: str = "submitted"
    orphans: int = 0
    max_file_bytes: int = 200_000_000
    shards: int = 1


PLAIN = Story()
LOST = Story(LOST_ANSWER)
LATE = Story(LOST_ANSWER, list_lag=6, orphans=1)
SPLIT = Story(max_file_bytes=700, shards=2)
"""Five lines are more than that, two and three are not."""

STORIES = {
    "submit.after_claim": PLAIN,
    "submit.after_upload": PLAIN,
    "submit.after_fence": PLAIN,
    "submit.after_create": PLAIN,
    "submit.after_record": PLAIN,
    "submit.after_unknown": LOST,
    "submit.after_wait": Story(LIMITED),
    "submit.after_split_decided": SPLIT,
    "submit.after_split_stored": SPLIT,
    "submit.after_split": SPLIT,
    "submit.after_refuse": Story(REFUSED, end="refused"),
    "recovery.after_claim": LOST,
    "recovery.after_adopt": LOST,
    "recovery.after_abandon": Story(NEVER_ARRIVED),
    "orphan.after_note": LATE,
    "orphan.after_cancel": LATE,
}
REFUSING = "plan.after_refuse"
PLANNING = {name for name in FAILPOINTS if name.startswith("plan.")}


def test_every_failpoint_has_a_story() -> None:
    assert STORIES.keys() | PLANNING == FAILPOINTS.keys()


@pytest.mark.parametrize("name", sorted(STORIES))
async def test_a_kill_at_any_step_of_submitting_leaves_one_kept_batch(
    world: Any, new_process: Callable[[], Any], make_lines: Any, quiet: None, simulator: Any, name: str
) -> None:
    story = STORIES[name]
    await simulator.configure(list_lag=story.list_lag, max_file_bytes=story.max_file_bytes)
    if story.fault is not None:
        await simulator.fault("batches.create", story.fault)
    batch_id = await world.plan(make_lines(5), await world.account())

    await _die_and_restart(new_process, name)

    await eventually(lambda: _are_there(world, batch_id, story.shards), what="every shard")
    shards = await world.in_state(batch_id, story.end)
    assert sorted(line for shard in shards for line in _lines(shard)) == [1, 2, 3, 4, 5]
    await eventually(lambda: _orphans_settled(world, story.orphans), what="orphans cancelled")
    await eventually(lambda: world.sent_events(batch_id), what="events sent")
    if story.end == "submitted":
        await world.assert_one_kept_for_each(batch_id)
    else:
        assert await world.kept() == []
        assert len(await simulator.calls("batches.create")) == 1


@pytest.mark.parametrize("name", sorted(PLANNING - {REFUSING}))
async def test_a_kill_at_any_step_of_planning_leaves_one_plan_and_one_kept_batch_a_shard(
    world: Any, new_process: Callable[[], Any], make_lines: Any, quiet: None, name: str
) -> None:
    batch_id = await world.create(make_lines(25), await world.account())

    await _die_and_restart(new_process, name, FLOOPY_SHARD__MAX_LINES="10")

    async def planned() -> bool:
        return bool((await world.batch(batch_id))["plan"])

    await eventually(planned, what="a plan")
    plan_id = (await world.batch(batch_id))["plan"]["plan_id"]
    await eventually(lambda: _all_submitted(world, batch_id, plan_id, 3), what="three shards submitted")
    await eventually(lambda: world.sent_events(batch_id), what="events sent")
    assert len(await world.kept()) == 3
    assert all(shard["plan_id"] == plan_id for shard in await world.shards(batch_id) if shard["attempts"])


CLAUDE_STORIES = {
    "submit.after_fence": (PLAIN, 1),
    "submit.after_create": (PLAIN, 1),
    "recovery.after_adopt": (LOST, 1),
    "submit.after_split_stored": (Story(shards=2), 3),
}
"""By step: what happens, and how many creates the simulator sees at most."""


@pytest.mark.edge(17)
@pytest.mark.parametrize("name", sorted(CLAUDE_STORIES))
async def test_a_kill_at_a_step_that_differs_on_anthropic_leaves_one_kept_batch(
    world: Any, new_process: Callable[[], Any], make_lines: Any, quiet: None, simulator: Any, name: str
) -> None:
    story, creates = CLAUDE_STORIES[name]
    if story.fault is not None:
        await simulator.fault("messages.batches.create", story.fault)
    await simulator.configure(max_batch_bytes=256_000_000 if story.shards == 1 else 600)
    lines = make_lines(5, model="claude-haiku-4-5")
    account = await world.account(provider="anthropic")
    batch_id = await world.create(lines, account, provider="anthropic")

    await _die_and_restart(new_process, name, FLOOPY_SUBMIT__CLOCK_SKEW="0.1")

    await eventually(lambda: _are_there(world, batch_id, story.shards), what="every shard")
    shards = await world.in_state(batch_id, "submitted")
    assert sorted(line for shard in shards for line in _lines(shard)) == [1, 2, 3, 4, 5]
    await eventually(lambda: world.sent_events(batch_id), what="events sent")
    await world.assert_one_kept_for_each(batch_id)
    assert len(await simulator.batches()) == story.shards
    assert len(await simulator.calls("messages.batches.create")) <= creates


async def test_a_kill_right_after_a_refusal_loses_neither_it_nor_its_event(
    world: Any, new_process: Callable[[], Any], simulator: Any
) -> None:
    batch_id = await world.create([b'{"custom_id": 7}'], await world.account())

    await _die_and_restart(new_process, REFUSING)

    await eventually(lambda: world.sent_events(batch_id), what="the event sent")
    batch = await world.batch(batch_id)
    assert (batch["status"], batch["errors"][0]["line"]) == ("failed", 1)
    assert await world.shards(batch_id) == []
    assert await simulator.calls("files.create") == []


async def _are_there(world: Any, batch_id: str, count: int) -> bool:
    return len(await world.shards(batch_id)) == count


def _lines(shard: dict[str, Any]) -> list[int]:
    return [line for first, last in shard["ranges"] for line in range(first, last + 1)]


async def _die_and_restart(new_process: Callable[[], Any], name: str, **settings: str) -> None:
    process = new_process()
    await process.start(FLOOPY_FAIL_AT=name, **settings)
    assert await process.died() == -signal.SIGKILL, process.log.read_text()[-3000:]
    await process.start(**settings)


async def _orphans_settled(world: Any, count: int) -> bool:
    orphans = await world.orphans()
    return len(orphans) == count and all(orphan["settled"] for orphan in orphans)


async def _all_submitted(world: Any, batch_id: str, plan_id: str, count: int) -> bool:
    mine = [shard for shard in await world.shards(batch_id) if shard["plan_id"] == plan_id]
    return [shard["state"] for shard in mine] == ["submitted"] * count


async def test_a_stopped_process_finishes_the_create_it_is_in(
    world: Any, new_process: Callable[[], Any], make_lines: Any, quiet: None, simulator: Any
) -> None:
    held = await simulator.fault("batches.create", {"kind": "hold", "when": "after"})
    batch_id = await world.plan(make_lines(2), await world.account())
    process = new_process()
    await process.start(FLOOPY_SUBMIT__CREATE_TIMEOUT="20", FLOOPY_SUBMIT__SETTLE_WINDOW="30")
    await eventually(lambda: world.holding(held), what="a create under way")

    process.send(signal.SIGTERM)
    await simulator.release(held)

    assert await process.died() == 0
    assert [s["state"] for s in await world.shards(batch_id)] == ["submitted"]
    await world.assert_one_kept_for_each(batch_id)


async def test_settings_under_which_a_create_could_be_repeated_are_refused(
    new_process: Callable[[], Any],
) -> None:
    process = new_process()
    await process.start(FLOOPY_SUBMIT__CREATE_TIMEOUT="3", FLOOPY_SUBMIT__SETTLE_WINDOW="3")

    assert await process.died() == 1
    assert "UnsafeSettings" in process.log.read_text()
