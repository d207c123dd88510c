"""The whole system stopped or killed in mid-batch goes on from its data directory."""

import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from floopy_e2e.lines import chat_file, custom_ids
from floopy_e2e.stack import Stack
from floopy_e2e.waiting import eventually


async def _start_batch(stack: Stack, content: bytes) -> str:
    async with stack.client() as client:
        uploaded = await client.files.create(file=("in.jsonl", content), purpose="batch")
        batch = await client.batches.create(
            input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
        )

    async def submitted() -> bool:
        return (await stack.batch(batch.id))["floopy"]["shards"].get("submitted", 0) == 1

    await eventually(submitted, what="a submitted shard")
    return batch.id


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # a killed child of a killed parent may wait for its new parent to notice
    return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()


@pytest.mark.parametrize("end", [Stack.stop, Stack.kill_all], ids=["SIGTERM", "SIGKILL"])
async def test_a_batch_goes_on_after_a_restart(
    tmp_path: Path, end: Callable[[Stack], Awaitable[object]]
) -> None:
    stack = Stack(tmp_path, {}, ("--broker", "embedded"))
    content = chat_file(300, tag="restart")
    try:
        await stack.start()
        before = dict(stack.credentials)
        await stack.simulator.configure(auto=False)
        batch_id = await _start_batch(stack, content)
        pids = stack.processes().values()

        await end(stack)

        async def nothing_left() -> bool:
            return all(_gone(pid) for pid in pids)

        await eventually(nothing_left, what="no process left behind")
        await stack.start()
        assert stack.credentials["api_key"] == before["api_key"]
        upstream = (await stack.simulator.batches())[0]["id"]
        await stack.simulator.advance(upstream, "completed")
        batch = await stack.balanced(batch_id)
        async with stack.client() as client:
            output = (await client.files.content(batch["output_file_id"])).content
        assert custom_ids(output) == custom_ids(content)
        await stack.verified(batch_id)
    finally:
        await stack.stop()


@pytest.mark.surface("9.10")
async def test_an_unfinished_batch_expires_and_keeps_what_was_answered(tmp_path: Path) -> None:
    stack = Stack(
        tmp_path,
        {"FLOOPY_BATCH__COMPLETION_WINDOW": "6", "FLOOPY_BATCH__EXPIRY_GRACE": "5"},
        ("--broker", "embedded"),
    )
    content = chat_file(50, tag="expiry")
    try:
        await stack.start()
        await stack.simulator.configure(auto=False)
        batch_id = await _start_batch(stack, content)
        await stack.simulator.advance((await stack.simulator.batches())[0]["id"], "in_progress", completed=20)

        batch = await stack.balanced(batch_id)

        assert batch["status"] == "expired"
        assert batch["request_counts"] == {"total": 50, "completed": 20, "failed": 30}
        async with stack.client() as client:
            output = (await client.files.content(batch["output_file_id"])).content
            errors = (await client.files.content(batch["error_file_id"])).content
        assert sorted(custom_ids(output) + custom_ids(errors)) == sorted(custom_ids(content))
        assert {json.loads(line)["error"]["code"] for line in errors.splitlines()} == {"batch_expired"}
        await stack.verified(batch_id)
    finally:
        await stack.stop()
