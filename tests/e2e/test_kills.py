"""kill -9 of every process of the system while 20,000 lines are on their way: nothing lost, nothing twice.

Segments of 200 lines, four shards that end in turn, on the embedded broker and on Apache Kafka.
"""

import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from floopy_e2e.lines import chat_file, custom_ids
from floopy_e2e.stack import Stack, running_stack
from floopy_e2e.waiting import eventually

from floopy.backends.kafka import KafkaDistribution, default_home

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

LINES = 20_000
SHARD_LINES = 5_000
SHARDS = LINES // SHARD_LINES

SMALL = {
    "FLOOPY_SEGMENT__MAX_LINES": "200",
    "FLOOPY_SHARD__MAX_LINES": str(SHARD_LINES),
    "FLOOPY_LEASE__TTL": "2",
    # ten finished batches of a hundred segments, recounted every few seconds, would be all the machine does
    "FLOOPY_AUDIT__BACKOFF_MAX": "60",
}


def _brokers() -> list[str]:
    usable = KafkaDistribution(default_home()).unusable() is None
    return ["embedded", "kafka"] if usable else ["embedded"]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=_brokers())
async def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    data_dir = tmp_path_factory.mktemp(f"kills-{request.param}")
    async with running_stack(data_dir, SMALL, "--broker", request.param) as started:
        yield started


async def _create(stack: Stack, content: bytes) -> str:
    async with stack.client() as client:
        uploaded = await client.files.create(file=("in.jsonl", content), purpose="batch")
        batch = await client.batches.create(
            input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
    return batch.id


async def _open_upstream(stack: Stack) -> list[str]:
    batches = await stack.simulator.batches()
    return [b["id"] for b in batches if b["status"] in {"validating", "in_progress", "finalizing"}]


async def _all_submitted(stack: Stack) -> list[str] | None:
    found = await _open_upstream(stack)
    return found if len(found) == SHARDS else None


async def _metering_has_begun(stack: Stack, batch_id: str) -> dict[str, Any] | None:
    lines: dict[str, Any] = (await stack.batch(batch_id))["floopy"]["lines"]
    return lines if 0 < lines["metered"] < lines["total"] else None


async def _accounted(stack: Stack, batch_id: str, content: bytes) -> None:
    """Balanced, recounted, in input order, and nothing paid twice."""
    batch = await stack.balanced(batch_id, timeout=240)
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
    async with stack.client() as client:
        output = (await client.files.content(batch["output_file_id"])).content
    assert custom_ids(output) == custom_ids(content)
    await stack.verified(batch_id)
    await stack.simulator.assert_nothing_twice()


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
async def test_killed_while_lines_are_being_metered(stack: Stack, name: str) -> None:
    content = chat_file(LINES, tag=f"kill {name}")
    await stack.simulator.configure(auto=False)
    batch_id = await _create(stack, content)
    first, *others = await eventually(lambda: _all_submitted(stack), timeout=90, what="four provider batches")

    await stack.simulator.advance(first, "completed")
    await eventually(lambda: _metering_has_begun(stack, batch_id), timeout=60, what="0 < metered < total")
    await stack.kill(name)
    for upstream in others:
        await stack.simulator.advance(upstream, "completed")

    await _accounted(stack, batch_id, content)


async def test_submitter_killed_between_intent_and_record(stack: Stack) -> None:
    content = chat_file(LINES, tag="kill submitter")
    await stack.simulator.configure(auto=True)
    held = await stack.simulator.fault("batches.create", {"kind": "hold", "when": "after"}, times=1)
    batch_id = await _create(stack, content)

    async def create_is_held() -> bool:
        return bool((await stack.simulator.fault_state(held))["waiting"])

    await eventually(create_is_held, timeout=60, what="a create between intent and record")
    assert (await stack.batch(batch_id))["floopy"]["shards"].get("submitting", 0) >= 1
    await stack.kill("floopy-submitter")
    await stack.simulator.release(held)

    await _accounted(stack, batch_id, content)
    creates = [c for c in await stack.simulator.calls("batches.create") if c["accepted"]]
    assert len(creates) == len({c["seq"] for c in creates})


async def test_a_submitter_paused_past_its_lease_in_a_create_changes_nothing(stack: Stack) -> None:
    content = chat_file(LINES, tag="zombie")
    await stack.simulator.configure(auto=True)
    held = await stack.simulator.fault("batches.create", {"kind": "hold", "when": "after"}, times=1)
    batch_id = await _create(stack, content)

    async def create_is_held() -> bool:
        return bool((await stack.simulator.fault_state(held))["waiting"])

    await eventually(create_is_held, timeout=60, what="a create in flight")
    paused = stack.processes()["floopy-submitter"]
    os.kill(paused, signal.SIGSTOP)
    try:
        # a second submitter is what a rolling upgrade or another replica would be
        async with stack.another("floopy-submitter"):
            await stack.simulator.release(held)
            await stack.balanced(batch_id, timeout=240)
    finally:
        os.kill(paused, signal.SIGCONT)

    await _accounted(stack, batch_id, content)


async def test_a_create_whose_answer_is_lost_is_adopted(stack: Stack) -> None:
    content = chat_file(LINES, tag="lost answer")
    await stack.simulator.configure(auto=True)
    before = len(await stack.simulator.batches())
    await stack.simulator.fault("batches.create", {"kind": "drop", "when": "after"}, times=2)

    batch_id = await _create(stack, content)

    await _accounted(stack, batch_id, content)
    assert len(await stack.simulator.batches()) == before + SHARDS
