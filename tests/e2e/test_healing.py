"""What sinks have stored can vanish, in part or whole, and is there again without a command."""

import os
import signal
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
import pytest_asyncio
from floopy_e2e.lines import chat_file
from floopy_e2e.providers import ANTHROPIC, PROVIDERS, Provider
from floopy_e2e.stack import Stack, running_stack
from pymongo.asynchronous.database import AsyncDatabase
from waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

LINES = 160
SINK_OF = {"usage_ledger": "metering", "requests": "logging", "scores": "feedback"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    small = {"FLOOPY_SEGMENT__MAX_LINES": "40", "FLOOPY_SHARD__MAX_LINES": "80"}
    async with running_stack(tmp_path_factory.mktemp("healing"), small, "--broker", "embedded") as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(stack: Stack) -> AsyncIterator[AsyncDatabase[dict[str, Any]]]:
    async with stack.database() as opened:
        yield opened


async def _create_everywhere(stack: Stack, tag: str) -> dict[Provider, str]:
    """A batch of two shards and four segments at each provider, by the id it got."""
    return {
        provider: await stack.create(provider, chat_file(LINES, tag=tag, provider=provider))
        for provider in PROVIDERS
    }


async def _all_balanced(stack: Stack, batch_ids: Iterable[str], timeout: float = 60) -> None:
    for batch_id in batch_ids:
        await stack.balanced(batch_id, timeout)


async def _all_whole(stack: Stack, batch_ids: Iterable[str]) -> bool:
    return all([(await stack.recounted(batch_id)).ok for batch_id in batch_ids])


async def _two_upstream(stack: Stack) -> list[tuple[str, str]] | None:
    """The two provider batches that each provider has to work on."""
    ledger = await stack.simulator.batches()
    found = [provider.untouched(ledger) for provider in PROVIDERS]
    return [(first, second) for first, second in found] if all(len(ids) == 2 for ids in found) else None


async def _advance(stack: Stack, upstream: Iterable[str]) -> None:
    for provider_batch_id in upstream:
        await stack.simulator.advance(provider_batch_id, "completed")


@pytest.mark.parametrize("collection", sorted(SINK_OF))
async def test_a_collection_dropped_after_balance_is_filled_again(
    stack: Stack, database: AsyncDatabase[dict[str, Any]], collection: str
) -> None:
    await stack.simulator.configure(auto=True)
    batch_ids = (await _create_everywhere(stack, f"after {collection}")).values()
    await _all_balanced(stack, batch_ids)

    await database.drop_collection(collection)

    await eventually(lambda: _all_whole(stack, batch_ids), timeout=60, what=f"{collection} filled again")
    await _all_balanced(stack, batch_ids)


@pytest.mark.parametrize("collection", sorted(SINK_OF))
async def test_a_collection_dropped_in_mid_batch_is_complete_at_the_end(
    stack: Stack, database: AsyncDatabase[dict[str, Any]], collection: str
) -> None:
    await stack.simulator.configure(auto=False)
    batch_ids = (await _create_everywhere(stack, f"during {collection}")).values()
    upstream = await eventually(lambda: _two_upstream(stack), what="two provider batches each")
    await _advance(stack, [first for first, _ in upstream])
    for batch_id in batch_ids:
        receipt = {"batch_id": batch_id, "sink": SINK_OF[collection]}
        await eventually(lambda wanted=receipt: database.receipts.find_one(wanted), what="a receipt")

    await database.drop_collection(collection)
    await _advance(stack, [second for _, second in upstream])

    await eventually(lambda: _all_whole(stack, batch_ids), timeout=60, what="batches that recount")
    await _all_balanced(stack, batch_ids)


async def test_a_broker_that_lost_its_log_in_mid_batch_loses_no_line(
    stack: Stack, database: AsyncDatabase[dict[str, Any]]
) -> None:
    await stack.simulator.configure(auto=False)
    batch_ids = await _create_everywhere(stack, "log lost")
    upstream = await eventually(lambda: _two_upstream(stack), what="two provider batches each")
    sinks = [stack.processes()[f"floopy-{sink}"] for sink in SINK_OF.values()]
    for pid in sinks:
        os.kill(pid, signal.SIGSTOP)
    try:
        await _advance(stack, [first for first, _ in upstream])
        for batch_id in batch_ids.values():
            emitted = {"batch_id": batch_id, "state": "emitted"}
            await eventually(lambda wanted=emitted: database.segments.find_one(wanted), what="a segment sent")
        # the embedded broker keeps its log in memory: what no sink has read is gone with the process
        await stack.kill("broker")
    finally:
        for pid in sinks:
            os.kill(pid, signal.SIGCONT)
    await _advance(stack, [second for _, second in upstream])

    await _all_balanced(stack, batch_ids.values(), timeout=90)
    for provider, batch_id in batch_ids.items():
        await stack.verified(batch_id)
        await stack.witnessed(batch_id, provider)


async def test_dropped_receipts_are_written_again(
    stack: Stack, database: AsyncDatabase[dict[str, Any]]
) -> None:
    await stack.simulator.configure(auto=True)
    batch_ids = (await _create_everywhere(stack, "receipts")).values()
    await _all_balanced(stack, batch_ids)

    await database.receipts.delete_many({"batch_id": {"$in": list(batch_ids)}, "segment": 1})

    await eventually(lambda: _all_whole(stack, batch_ids), timeout=60, what="receipts written again")


async def test_verify_names_the_line_that_differs(
    stack: Stack, database: AsyncDatabase[dict[str, Any]]
) -> None:
    await stack.simulator.configure(auto=True)
    batch_id = await stack.create(ANTHROPIC, chat_file(LINES, tag="differs", provider=ANTHROPIC))
    await stack.balanced(batch_id)
    code, report = await stack.floopy("verify", batch_id)
    assert (code, report["ok"], report["lines"]) == (0, True, LINES)

    await database.requests.update_one({"_id": f"{batch_id}:000000007"}, {"$set": {"custom_id": "other"}})
    code, report = await stack.floopy("verify", batch_id)

    assert code == 1
    assert [(d["store"], d["line"]) for d in report["differences"]] == [("requests", 7)]
    assert (await stack.floopy("verify", "batch_unknown"))[0] == 2
