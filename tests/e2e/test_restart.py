"""The whole system stopped or killed in mid-batch goes on from its data directory."""

import json
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest
from floopy_e2e.lines import chat_file, custom_ids
from floopy_e2e.providers import PROVIDERS, Provider
from floopy_e2e.stack import Stack
from waiting import eventually


async def _start_batches(stack: Stack, contents: Mapping[Provider, bytes]) -> dict[Provider, str]:
    """A batch at each provider, each submitted as one shard."""
    batch_ids = {provider: await stack.create(provider, content) for provider, content in contents.items()}

    async def submitted() -> bool:
        batches = [await stack.batch(batch_id) for batch_id in batch_ids.values()]
        return all(batch["floopy"]["shards"].get("submitted", 0) == 1 for batch in batches)

    await eventually(submitted, what="submitted shards")
    return batch_ids


async def _advance_all(stack: Stack, to: str, completed: int | None = None) -> None:
    for upstream in await stack.simulator.batches():
        await stack.simulator.advance(upstream["id"], to, completed)


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # a killed child of a killed parent may wait for its new parent to notice
    return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()


@pytest.mark.parametrize("end", [Stack.stop, Stack.kill_all], ids=["SIGTERM", "SIGKILL"])
async def test_batches_at_every_provider_go_on_after_a_restart(
    tmp_path: Path, end: Callable[[Stack], Awaitable[object]]
) -> None:
    stack = Stack(tmp_path, {}, ("--broker", "embedded"))
    contents = {provider: chat_file(300, tag="restart", provider=provider) for provider in PROVIDERS}
    try:
        await stack.start()
        before = dict(stack.credentials)
        await stack.simulator.configure(auto=False)
        batch_ids = await _start_batches(stack, contents)
        pids = stack.processes().values()

        await end(stack)

        async def nothing_left() -> bool:
            return all(_gone(pid) for pid in pids)

        await eventually(nothing_left, what="no process left behind")
        await stack.start()
        assert stack.credentials["api_key"] == before["api_key"]
        await _advance_all(stack, "completed")
        for provider, batch_id in batch_ids.items():
            output, _ = await stack.files(await stack.balanced(batch_id))
            assert custom_ids(output) == custom_ids(contents[provider])
            await stack.verified(batch_id)
            assert [sent["lines"] for sent in await stack.witnessed(batch_id, provider)] == [300]
    finally:
        await stack.stop()


@pytest.mark.surface("9.10; 4.3 batch_expired: `response` is null; 3.4 expired: what was finished is kept")
@pytest.mark.edge(11)
async def test_an_unfinished_batch_expires_and_keeps_what_was_answered(tmp_path: Path) -> None:
    stack = Stack(
        tmp_path,
        {"FLOOPY_BATCH__COMPLETION_WINDOW": "6", "FLOOPY_BATCH__EXPIRY_GRACE": "5"},
        ("--broker", "embedded"),
    )
    contents = {provider: chat_file(50, tag="expiry", provider=provider) for provider in PROVIDERS}
    try:
        await stack.start()
        await stack.simulator.configure(auto=False)
        batch_ids = await _start_batches(stack, contents)
        await _advance_all(stack, "in_progress", completed=20)

        for provider, batch_id in batch_ids.items():
            batch = await stack.balanced(batch_id)

            assert batch["status"] == "expired"
            assert batch["request_counts"] == {"total": 50, "completed": 20, "failed": 30}
            output, errors = await stack.files(batch)
            assert sorted(custom_ids(output) + custom_ids(errors)) == sorted(custom_ids(contents[provider]))
            message = "This request could not be executed before the completion window expired."
            for line in map(json.loads, errors.splitlines()):
                assert (line["response"], line["error"]) == (
                    None,
                    {"code": "batch_expired", "message": message},
                )
            await stack.verified(batch_id)
            await stack.witnessed(batch_id, provider)
    finally:
        await stack.stop()
