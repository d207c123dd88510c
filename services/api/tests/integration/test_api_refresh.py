"""GET pulls the next look at a provider forward, waits for it, and not for long."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from openai import AsyncOpenAI
from waiting import eventually

from floopy_common.settings import ApiSettings
from floopy_common.stores.polling import PollStore
from floopy_common.stores.refreshing import RefreshStore

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


async def planned(service: Any, client: AsyncOpenAI, shards: int = 1, **changes: Any) -> str:
    """A batch in progress with shards whose last look is long ago and whose next is far away."""
    batch = await client.batches.create(
        input_file_id="file-x", endpoint="/v1/chat/completions", completion_window="24h"
    )
    plan = {"plan_id": "plan_1", "total": 10 * shards, "model": "gpt-4o-mini"}
    counts = {"total": 10 * shards, "completed": 0, "failed": 0}
    await service.write(batch.id, status="in_progress", plan=plan, counts=counts)
    for number in range(shards):
        poll = {
            "next_at": datetime.now(UTC) + timedelta(hours=1),
            "interval": 60.0,
            "failures": 0,
            "started_at": LONG_AGO,
            "last_at": LONG_AGO,
            "asked_at": None,
        }
        shard = {
            "_id": f"plan_1:{number:05d}",
            "batch_id": batch.id,
            "plan_id": "plan_1",
            "no": number,
            "account_id": "acct_1",
            "state": "submitted",
            "lines": 10,
            "provider_batch_id": f"up_{number}",
            "provider_counts": None,
            "lease": None,
            "poll": poll,
            **changes,
        }
        await service.mongo.collection("shards").insert_new(shard)
    return batch.id


async def shards_of(service: Any, batch_id: str) -> list[dict[str, Any]]:
    return await service.mongo.collection("shards").find_all({"batch_id": batch_id}, sort=[("no", 1)])


@asynccontextmanager
async def looking(service: Any, completed: int) -> AsyncIterator[list[str]]:
    """Somebody who makes every due look, as the reconciler does; the shards looked at."""
    polls = PollStore(service.mongo, "test", 15.0)
    looked: list[str] = []

    async def look() -> None:
        while True:
            for due in await eventually(lambda: polls.due_looks(10), what="a due look"):
                shard = await polls.claim_look(due["_id"], 5.0)
                assert shard is not None
                looked.append(shard["_id"])
                counts = {"total": 10, "completed": completed, "failed": 0}
                await polls.record_look(shard, status="in_progress", counts=counts, files=None, interval=60.0)

    task = asyncio.create_task(look())
    try:
        yield looked
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.surface("3.2 retrieve refreshes; 3.3 request_counts move while shards finish")
async def test_a_get_shows_what_the_provider_says_now(service: Any, client: AsyncOpenAI) -> None:
    batch_id = await planned(service, client, shards=3)

    async with looking(service, completed=4) as looked:
        batch = await client.batches.retrieve(batch_id)

    assert len(looked) == 3
    assert batch.request_counts is not None
    assert batch.request_counts.model_dump() == {"total": 30, "completed": 12, "failed": 0}


async def test_a_get_waits_for_nobody_longer_than_it_may(serving: Any) -> None:
    async with serving(api=ApiSettings(refresh_wait=0.3)) as service:
        alice = await service.join("alice", "openai")
        async with service.client(alice) as client:
            batch_id = await planned(service, client)
            began = time.monotonic()
            batch = await client.batches.retrieve(batch_id)
            took = time.monotonic() - began

    assert batch.status == "in_progress"
    assert 0.25 < took < 1.0


async def test_a_fresh_look_is_not_asked_for_again(service: Any, client: AsyncOpenAI) -> None:
    batch_id = await planned(service, client)
    async with looking(service, completed=1) as looked:
        await client.batches.retrieve(batch_id)
        await asyncio.gather(*(client.batches.retrieve(batch_id) for _ in range(5)))

    assert len(looked) <= 2


async def test_many_readers_ask_once(
    service: Any, client: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    original = RefreshStore.ask

    async def ask(self: RefreshStore, batch_id: str, older_than: float) -> datetime | None:
        asked.append(batch_id)
        return await original(self, batch_id, older_than)

    monkeypatch.setattr(RefreshStore, "ask", ask)
    batch_id = await planned(service, client)

    async with looking(service, completed=1):
        await asyncio.gather(*(client.batches.retrieve(batch_id) for _ in range(30)))

    assert len(asked) <= 3


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "downloading"},
        {"state": "settled"},
        {"state": "planned"},
    ],
)
async def test_a_shard_that_needs_no_look_is_neither_hurried_nor_waited_for(
    service: Any, client: AsyncOpenAI, changes: dict[str, Any]
) -> None:
    batch_id = await planned(service, client, **changes)
    before = await shards_of(service, batch_id)

    began = time.monotonic()
    await client.batches.retrieve(batch_id)

    assert time.monotonic() - began < 0.5
    assert await shards_of(service, batch_id) == before


async def test_a_provider_that_fails_keeps_its_back_off(service: Any, client: AsyncOpenAI) -> None:
    batch_id = await planned(service, client)
    await service.mongo.collection("shards").update_many({}, {"$set": {"poll.failures": 3}})
    before = await shards_of(service, batch_id)

    await client.batches.retrieve(batch_id)

    assert await shards_of(service, batch_id) == before


async def test_a_look_that_is_due_sooner_is_not_put_off(service: Any, client: AsyncOpenAI) -> None:
    batch_id = await planned(service, client)
    await service.mongo.collection("shards").update_many({}, {"$set": {"poll.next_at": LONG_AGO}})

    await RefreshStore(service.mongo).ask(batch_id, 0.25)

    (shard,) = await shards_of(service, batch_id)
    assert shard["poll"]["next_at"] <= LONG_AGO
    assert shard["poll"]["asked_at"] > LONG_AGO


async def test_a_failed_look_ends_the_wait(service: Any, client: AsyncOpenAI) -> None:
    batch_id = await planned(service, client)
    store = RefreshStore(service.mongo)
    asked_at = await store.ask(batch_id, 0.25)
    assert asked_at is not None
    assert not await store.is_answered(batch_id, asked_at)

    await service.mongo.collection("shards").update_many({}, {"$set": {"poll.failures": 1}})

    assert await store.is_answered(batch_id, asked_at)


@pytest.mark.parametrize("status", ["validating", "completed", "cancelled"])
async def test_a_batch_without_a_provider_at_work_is_read_at_once(
    service: Any, client: AsyncOpenAI, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = await planned(service, client)
    fields: dict[str, Any] = {"plan": None} if status == "validating" else {}
    await service.write(batch_id, status=status, **fields)

    await client.batches.retrieve(batch_id)

    (shard,) = await shards_of(service, batch_id)
    assert shard["poll"]["asked_at"] is None
