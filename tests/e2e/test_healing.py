"""What sinks have stored can vanish, in part or whole, and is there again without a command."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from floopy_e2e.lines import chat_file
from floopy_e2e.stack import Stack, running_stack
from floopy_e2e.waiting import eventually
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

pytestmark = pytest.mark.asyncio(loop_scope="module")

LINES = 400
SINK_OF = {"usage_ledger": "metering", "requests": "logging", "scores": "feedback"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    small = {"FLOOPY_SEGMENT__MAX_LINES": "100", "FLOOPY_SHARD__MAX_LINES": "200"}
    async with running_stack(tmp_path_factory.mktemp("healing"), small, "--broker", "embedded") as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(stack: Stack) -> AsyncIterator[AsyncDatabase[dict[str, Any]]]:
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(stack.credentials["mongo_uri"])
    yield client[stack.credentials["mongo_database"]]
    await client.close()


async def _create(stack: Stack, tag: str) -> str:
    async with stack.client() as client:
        uploaded = await client.files.create(file=("in.jsonl", chat_file(LINES, tag=tag)), purpose="batch")
        batch = await client.batches.create(
            input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
    return batch.id


async def _whole(stack: Stack, batch_id: str) -> bool:
    code, _ = await stack.floopy("verify", batch_id)
    return code == 0


@pytest.mark.parametrize("collection", sorted(SINK_OF))
async def test_a_collection_dropped_after_balance_is_filled_again(
    stack: Stack, database: AsyncDatabase[dict[str, Any]], collection: str
) -> None:
    batch_id = await _create(stack, f"after {collection}")
    await stack.balanced(batch_id)

    await database.drop_collection(collection)

    await eventually(lambda: _whole(stack, batch_id), timeout=60, what=f"{collection} filled again")
    await stack.balanced(batch_id)


@pytest.mark.parametrize("collection", sorted(SINK_OF))
async def test_a_collection_dropped_in_mid_batch_is_complete_at_the_end(
    stack: Stack, database: AsyncDatabase[dict[str, Any]], collection: str
) -> None:
    await stack.simulator.configure(auto=False)
    batch_id = await _create(stack, f"during {collection}")
    first, second = await eventually(lambda: _two_upstream(stack), what="two provider batches")
    await stack.simulator.advance(first, "completed")
    receipt = {"batch_id": batch_id, "sink": SINK_OF[collection]}
    await eventually(lambda: database.receipts.find_one(receipt), what="a receipt")

    await database.drop_collection(collection)
    await stack.simulator.advance(second, "completed")

    await eventually(lambda: _whole(stack, batch_id), timeout=60, what="a batch that recounts")
    await stack.balanced(batch_id)


async def _two_upstream(stack: Stack) -> tuple[str, str] | None:
    found = [b["id"] for b in await stack.simulator.batches() if b["status"] == "validating"]
    return (found[0], found[1]) if len(found) == 2 else None


async def test_a_broker_that_lost_its_log_in_mid_batch_loses_no_line(
    stack: Stack, database: AsyncDatabase[dict[str, Any]]
) -> None:
    await stack.simulator.configure(auto=False)
    batch_id = await _create(stack, "log lost")
    first, second = await eventually(lambda: _two_upstream(stack), what="two provider batches")
    sinks = [stack.processes()[f"floopy-{sink}"] for sink in SINK_OF.values()]
    for pid in sinks:
        os.kill(pid, signal.SIGSTOP)
    try:
        await stack.simulator.advance(first, "completed")
        emitted = {"batch_id": batch_id, "state": "emitted"}
        await eventually(lambda: database.segments.find_one(emitted), what="an emitted segment")
        # the embedded broker keeps its log in memory: what no sink has read is gone with the process
        await stack.kill("broker")
    finally:
        for pid in sinks:
            os.kill(pid, signal.SIGCONT)
    await stack.simulator.advance(second, "completed")

    await stack.balanced(batch_id, timeout=90)
    await stack.verified(batch_id)


async def test_dropped_receipts_are_written_again(
    stack: Stack, database: AsyncDatabase[dict[str, Any]]
) -> None:
    await stack.simulator.configure(auto=True)
    batch_id = await _create(stack, "receipts")
    await stack.balanced(batch_id)

    await database.receipts.delete_many({"batch_id": batch_id, "segment": 1})

    await eventually(lambda: _whole(stack, batch_id), timeout=60, what="receipts written again")


async def test_verify_names_the_line_that_differs(
    stack: Stack, database: AsyncDatabase[dict[str, Any]], tmp_path: Path
) -> None:
    await stack.simulator.configure(auto=True)
    batch_id = await _create(stack, "differs")
    await stack.balanced(batch_id)

    await database.requests.update_one({"_id": f"{batch_id}:000000007"}, {"$set": {"custom_id": "other"}})
    code, report = await stack.floopy("verify", batch_id)

    assert code == 1
    assert [(d["store"], d["line"]) for d in report["differences"]] == [("requests", 7)]
    assert (await stack.floopy("verify", "batch_unknown"))[0] == 2
