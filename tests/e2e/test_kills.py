"""kill -9 of every process of the system while a batch is on its way: nothing lost, nothing twice.

A hundred segments and four shards that end in turn, on the embedded broker and on Apache Kafka; at Anthropic
on one of them.
"""

import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from floopy_e2e.lines import chat_file, custom_ids
from floopy_e2e.providers import ANTHROPIC, OPENAI, Provider
from floopy_e2e.stack import Stack, running_stack
from waiting import eventually

from floopy.backends.kafka import KafkaDistribution, default_home

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

SEGMENTS = 100
SHARDS = 4
LINES = 4_000
"""What matters is that many segments and every shard are on their way, not how long they are."""

SMALL = {
    "FLOOPY_SEGMENT__MAX_LINES": str(LINES // SEGMENTS),
    "FLOOPY_SHARD__MAX_LINES": str(LINES // SHARDS),
    "FLOOPY_LEASE__TTL": "2",
    # ten finished batches of a hundred segments, recounted every few seconds, would be all the machine does
    "FLOOPY_AUDIT__BACKOFF_MAX": "60",
}


def _places() -> list[tuple[str, Provider]]:
    """Which broker with which provider: a kill concerns one or the other, so not each with each."""
    if KafkaDistribution(default_home()).unusable() is None:
        return [("embedded", OPENAI), ("kafka", OPENAI), ("kafka", ANTHROPIC)]
    return [("embedded", OPENAI), ("embedded", ANTHROPIC)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("stack,provider", _places(), ids=str, indirect=["stack"], scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    data_dir = tmp_path_factory.mktemp(f"kills-{request.param}")
    async with running_stack(data_dir, SMALL, "--broker", request.param) as started:
        yield started


async def _all_submitted(stack: Stack, provider: Provider) -> list[str] | None:
    found = provider.untouched(await stack.simulator.batches())
    return found if len(found) == SHARDS else None


async def _metering_has_begun(stack: Stack, batch_id: str) -> dict[str, Any] | None:
    lines: dict[str, Any] = (await stack.batch(batch_id))["floopy"]["lines"]
    return lines if 0 < lines["metered"] < lines["total"] else None


async def _accounted(stack: Stack, provider: Provider, batch_id: str, content: bytes) -> None:
    """Balanced, recounted, in input order; one provider batch a shard, and nothing paid twice."""
    batch = await stack.balanced(batch_id, timeout=240)
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
    output, _ = await stack.files(batch)
    assert custom_ids(output) == custom_ids(content)
    await stack.verified(batch_id)
    assert len(await stack.witnessed(batch_id, provider)) == SHARDS
    await stack.simulator.assert_nothing_twice()


async def _create_is_held(stack: Stack, fault: str) -> bool:
    return bool((await stack.simulator.fault_state(fault))["waiting"])


@pytest.mark.parametrize(
    "name",
    [
        "floopy-reconciler",
        "floopy-metering",
        "floopy-logging",
        "floopy-feedback",
        "broker",
        "mongod",
        "floopy-api",
    ],
)
async def test_killed_while_lines_are_being_metered(stack: Stack, provider: Provider, name: str) -> None:
    content = chat_file(LINES, tag=f"kill {name}", provider=provider)
    await stack.simulator.configure(auto=False)
    batch_id = await stack.create(provider, content)
    first, *others = await eventually(
        lambda: _all_submitted(stack, provider), timeout=90, what="four provider batches"
    )

    await stack.simulator.advance(first, "completed")
    await eventually(lambda: _metering_has_begun(stack, batch_id), timeout=60, what="0 < metered < total")
    await stack.kill(name)
    for upstream in others:
        await stack.simulator.advance(upstream, "completed")

    await _accounted(stack, provider, batch_id, content)


async def test_submitter_killed_between_intent_and_record(stack: Stack, provider: Provider) -> None:
    content = chat_file(LINES, tag="kill submitter", provider=provider)
    await stack.simulator.configure(auto=True)
    held = await stack.simulator.fault(provider.creates, {"kind": "hold", "when": "after"}, times=1)
    batch_id = await stack.create(provider, content)
    await eventually(
        lambda: _create_is_held(stack, held), timeout=60, what="a create between intent and record"
    )
    async with stack.database() as database:
        assert await database.shards.count_documents({"batch_id": batch_id, "state": "submitting"}) >= 1

    await stack.kill("floopy-submitter")
    await stack.simulator.release(held)

    await _accounted(stack, provider, batch_id, content)
    creates = [c for c in await stack.simulator.calls(provider.creates) if c["accepted"]]
    assert len(creates) == len({c["seq"] for c in creates})


async def test_a_submitter_paused_past_its_lease_in_a_create_changes_nothing(
    stack: Stack, provider: Provider
) -> None:
    content = chat_file(LINES, tag="zombie", provider=provider)
    await stack.simulator.configure(auto=True)
    held = await stack.simulator.fault(provider.creates, {"kind": "hold", "when": "after"}, times=1)
    batch_id = await stack.create(provider, content)
    await eventually(lambda: _create_is_held(stack, held), timeout=60, what="a create in flight")
    paused = stack.processes()["floopy-submitter"]
    os.kill(paused, signal.SIGSTOP)
    try:
        # a second submitter is what a rolling upgrade or another replica would be
        async with stack.another("floopy-submitter"):
            await stack.simulator.release(held)
            await stack.balanced(batch_id, timeout=240)
    finally:
        os.kill(paused, signal.SIGCONT)

    await _accounted(stack, provider, batch_id, content)


async def test_a_create_whose_answer_is_lost_is_adopted(stack: Stack, provider: Provider) -> None:
    content = chat_file(LINES, tag="lost answer", provider=provider)
    await stack.simulator.configure(auto=True)
    before = len(await stack.simulator.batches())
    await stack.simulator.fault(provider.creates, {"kind": "drop", "when": "after"}, times=2)

    batch_id = await stack.create(provider, content)

    await _accounted(stack, provider, batch_id, content)
    assert len(await stack.simulator.batches()) == before + SHARDS
