"""Cancelling in every state, and against somebody who moves the batch meanwhile."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from floopy_common.domain.batch import BatchStatus
from floopy_common.stores.batches import BatchStore


async def create(client: AsyncOpenAI) -> str:
    batch = await client.batches.create(
        input_file_id="file-x", endpoint="/v1/chat/completions", completion_window="24h"
    )
    return batch.id


@pytest.mark.parametrize("status", ["validating", "in_progress", "finalizing"])
@pytest.mark.surface("3.2 cancel; 9.9")
async def test_a_live_batch_is_cancelling_afterwards(service: Any, client: AsyncOpenAI, status: str) -> None:
    batch_id = await create(client)
    await service.write(batch_id, status=status)
    service.woken.clear()

    answered = await client.batches.cancel(batch_id)

    stored = await service.batch(batch_id)
    assert (answered.status, stored["status"], stored["version"]) == ("cancelling", "cancelling", 2)
    assert answered.cancelling_at == int(stored["cancelling_at"].timestamp())
    assert (stored["ending"], stored["ending_at"]) == ("cancelled", stored["cancelling_at"])
    # its regular turn may be minutes away
    assert stored["next_look_at"] == stored["cancelling_at"]
    assert [event["topic"] for event in stored["outbox"]] == ["batch.created", "batch.cancel.requested"]
    assert service.woken == [True]


@pytest.mark.parametrize("status", ["cancelling", "cancelled"])
@pytest.mark.surface("3.4 cancel again; 9.9")
async def test_a_batch_on_its_way_out_stays_as_it_is(service: Any, client: AsyncOpenAI, status: str) -> None:
    batch_id = await create(client)
    await service.write(batch_id, status=status, cancelling_at=datetime(2026, 1, 1, tzinfo=UTC))
    before = await service.batch(batch_id)

    answered = await client.batches.cancel(batch_id)

    assert answered.status == status
    assert await service.batch(batch_id) == before


@pytest.mark.parametrize("status", ["completed", "failed", "expired"])
@pytest.mark.surface("5 cancel completed, failed, expired; 9.9")
async def test_an_ended_batch_is_a_conflict_not_to_be_repeated(
    service: Any, client: AsyncOpenAI, status: str
) -> None:
    batch_id = await create(client)
    await service.write(batch_id, status=status)

    with pytest.raises(openai.ConflictError) as refused:
        await client.batches.cancel(batch_id)

    assert refused.value.body == {
        "message": f"Cannot cancel a batch with status '{status}'.",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
    assert refused.value.response.headers["x-should-retry"] == "false"


def _moving(monkeypatch: pytest.MonkeyPatch, service: Any, *statuses: str) -> None:
    """Somebody else moves the batch right before each of our first tries."""
    original = BatchStore.transition
    left = list(statuses)

    async def transition(self: BatchStore, batch: Any, *args: Any, **options: Any) -> Any:
        if left:
            version = batch["version"] + 1
            await service.write(batch["_id"], status=left.pop(0), version=version)
        return await original(self, batch, *args, **options)

    monkeypatch.setattr(BatchStore, "transition", transition)


async def test_a_batch_that_moved_on_is_decided_anew(
    service: Any, client: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = await create(client)
    _moving(monkeypatch, service, "in_progress", "finalizing")

    assert (await client.batches.cancel(batch_id)).status == "cancelling"


async def test_a_batch_that_completed_meanwhile_is_a_conflict(
    service: Any, client: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = await create(client)
    _moving(monkeypatch, service, "finalizing", "completed")

    with pytest.raises(openai.ConflictError, match="'completed'"):
        await client.batches.cancel(batch_id)


async def test_many_cancels_at_once_make_one_event(service: Any, client: AsyncOpenAI) -> None:
    batch_id = await create(client)

    answers = await asyncio.gather(*(client.batches.cancel(batch_id) for _ in range(10)))

    assert {batch.status for batch in answers} == {BatchStatus.CANCELLING.value}
    stored = await service.batch(batch_id)
    assert stored["version"] == 2
    assert [event["topic"] for event in stored["outbox"]] == ["batch.created", "batch.cancel.requested"]
