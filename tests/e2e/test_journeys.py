"""What users do, through every service, with the official OpenAI SDK."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from floopy_e2e.lines import chat_file, chat_line, custom_ids
from floopy_e2e.providers import ANTHROPIC, OPENAI, Provider
from floopy_e2e.stack import Stack
from openai import OpenAI
from openai.types.chat import ChatCompletion
from waiting import eventually

from floopy import batch_run

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def _run(
    stack: Stack, provider: Provider, content: bytes, **options: Any
) -> tuple[dict[str, Any], bytes, bytes]:
    """Send a file through, recount it, ask the provider; (balanced batch, output file, error file)."""
    batch = await stack.balanced(await stack.create(provider, content, **options))
    output, errors = await stack.files(batch)
    assert (await stack.verified(batch["id"])).lines == len(custom_ids(content))
    await stack.witnessed(batch["id"], provider)
    return batch, output, errors


@pytest.mark.surface("9.11")
async def test_every_line_of_a_good_file_is_answered_in_input_order(stack: Stack, provider: Provider) -> None:
    content = chat_file(200, tag="good", provider=provider)

    batch, output, _ = await _run(stack, provider, content, metadata={"price": "$5 off", "root": "$$ROOT"})

    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 200, "completed": 200, "failed": 0}
    assert batch["metadata"] == {"price": "$5 off", "root": "$$ROOT"}
    assert batch["error_file_id"] is None
    assert custom_ids(output) == custom_ids(content)
    for line in output.splitlines():
        ChatCompletion.model_validate(json.loads(line)["response"]["body"])
    expected = dict.fromkeys(("total", "answered", "logged", "metered", "scored"), 200) | {"parked": 0}
    assert batch["floopy"]["lines"] == expected
    assert [sent["lines"] for sent in await stack.witnessed(batch["id"], provider)] == [200]


@pytest.mark.surface("4.2 every field of an output line; the output file's purpose and lifetime")
async def test_an_output_line_has_openais_fields_and_no_other(stack: Stack, provider: Provider) -> None:
    batch, output, _ = await _run(stack, provider, chat_file(5, tag="shape", provider=provider))

    assert output.endswith(b"\n")
    lines = [json.loads(line) for line in output.split(b"\n")[:-1]]
    for line in lines:
        assert list(line) == ["id", "custom_id", "response", "error"]
        assert re.fullmatch(r"batch_req_[0-9a-f]{32}", line["id"])
        assert list(line["response"]) == ["status_code", "request_id", "body"]
        assert (line["response"]["status_code"], line["error"]) == (200, None)
        assert re.fullmatch(r"\S+", line["response"]["request_id"])
        assert line["response"]["body"]["object"] == "chat.completion"
    assert len({line["id"] for line in lines}) == 5
    async with stack.client() as client:
        file = await client.files.retrieve(batch["output_file_id"])
    assert (file.purpose, file.bytes) == ("batch_output", len(output))
    assert file.expires_at == file.created_at + 30 * 86_400


@pytest.mark.surface("9.12")
async def test_usage_is_the_sum_over_the_output(stack: Stack, provider: Provider) -> None:
    batch, output, _ = await _run(stack, provider, chat_file(30, tag="usage", provider=provider))

    usages = [json.loads(line)["response"]["body"]["usage"] for line in output.splitlines()]
    assert batch["usage"]["input_tokens"] == sum(u["prompt_tokens"] for u in usages)
    assert batch["usage"]["output_tokens"] == sum(u["completion_tokens"] for u in usages)
    assert batch["usage"]["total_tokens"] == sum(u["total_tokens"] for u in usages)


@pytest.mark.surface("9.8; 4.3 HTTP failure: `response` is filled, `error` is null")
async def test_a_batch_in_which_every_line_fails_completes_with_an_error_file_only(
    stack: Stack, provider: Provider
) -> None:
    batch, _, errors = await _run(
        stack, provider, chat_file(20, lambda _: "status=400", tag="bad", provider=provider)
    )

    assert batch["status"] == "completed"
    assert batch["output_file_id"] is None
    assert batch["request_counts"] == {"total": 20, "completed": 0, "failed": 20}
    for line in map(json.loads, errors.splitlines()):
        assert list(line) == ["id", "custom_id", "response", "error"]
        assert line["error"] is None
        assert list(line["response"]) == ["status_code", "request_id", "body"]
        assert line["response"]["status_code"] == 400
        assert line["response"]["body"]["error"].keys() == {"message", "type", "param", "code"}


@pytest.mark.surface("4.3; 9.11")
async def test_mixed_lines_end_in_exactly_one_file(stack: Stack, provider: Provider) -> None:
    content = chat_file(60, lambda n: "status=400" if n % 3 == 0 else None, tag="mixed", provider=provider)

    batch, output, errors = await _run(stack, provider, content)

    ids = custom_ids(content)
    assert custom_ids(output) == [name for n, name in enumerate(ids, 1) if n % 3]
    assert custom_ids(errors) == [name for n, name in enumerate(ids, 1) if n % 3 == 0]
    assert batch["request_counts"] == {"total": 60, "completed": 40, "failed": 20}


@pytest.mark.edge(19)
async def test_lines_that_fail_in_passing_are_tried_again(stack: Stack, provider: Provider) -> None:
    content = chat_file(
        40, lambda n: "status=500 times=1" if n % 4 == 0 else None, tag="retry", provider=provider
    )

    batch, output, _ = await _run(stack, provider, content)

    assert batch["request_counts"] == {"total": 40, "completed": 40, "failed": 0}
    assert custom_ids(output) == custom_ids(content)


@pytest.mark.edge(15)
async def test_provider_oddities_lose_and_double_nothing(stack: Stack, provider: Provider) -> None:
    oddities = {3: "missing", 5: "duplicate", 7: "unknown", 9: "garbled", 11: "both", 13: "duplicate=other"}
    content = chat_file(30, oddities.get, tag="odd", provider=provider)

    _, output, errors = await _run(stack, provider, content)

    seen = custom_ids(output) + custom_ids(errors)
    assert sorted(seen) == sorted(custom_ids(content))


async def test_floopy_batches_run_sends_a_large_file_in_parts(
    stack: Stack, provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_run, "ONE_REQUEST", 1000)
    content = chat_file(40, tag="parts", provider=provider)
    request = batch_run.Request(
        tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "errors.jsonl", provider=provider.name
    )
    request.input.write_bytes(content)

    with OpenAI(base_url=stack.credentials["base_url"], api_key=stack.credentials["api_key"]) as client:
        created = await asyncio.to_thread(batch_run.create, client, request)
        batch = await stack.balanced(created.id)
        await asyncio.to_thread(batch_run.download, client, batch["output_file_id"], request.output)

    assert custom_ids(request.output.read_bytes()) == custom_ids(content)
    async with stack.database() as database:
        assert await database.uploads.count_documents({"status": "completed", "bytes": len(content)}) >= 1


def _with_refused(content: bytes, every: int) -> bytes:
    """Every so many lines ask for what no provider but OpenAI has."""
    lines = [json.loads(line) for line in content.splitlines()]
    for line in lines[every - 1 :: every]:
        line["body"]["logprobs"] = True
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


async def test_lines_that_cannot_be_translated_end_in_the_error_file_unsent(stack: Stack) -> None:
    content = _with_refused(chat_file(30, tag="refused", provider=ANTHROPIC), every=5)

    batch, output, errors = await _run(stack, ANTHROPIC, content)

    ids = custom_ids(content)
    assert custom_ids(output) == [name for n, name in enumerate(ids, 1) if n % 5]
    assert custom_ids(errors) == [name for n, name in enumerate(ids, 1) if n % 5 == 0]
    assert batch["request_counts"] == {"total": 30, "completed": 24, "failed": 6}
    line = json.loads(errors.splitlines()[0])
    assert line["response"]["status_code"] == 400
    assert line["response"]["body"]["error"]["param"] == "logprobs"
    assert line["response"]["body"]["error"]["code"] == "unsupported_parameter"
    assert [sent["lines"] for sent in await stack.witnessed(batch["id"], ANTHROPIC)] == [24]


async def test_a_batch_of_which_nothing_can_be_translated_is_never_sent(stack: Stack) -> None:
    content = _with_refused(chat_file(5, tag="all refused", provider=ANTHROPIC), every=1)
    before = await stack.simulator.calls(ANTHROPIC.creates)

    batch, _, errors = await _run(stack, ANTHROPIC, content)

    assert batch["status"] == "completed"
    assert batch["output_file_id"] is None
    assert custom_ids(errors) == custom_ids(content)
    assert batch["request_counts"] == {"total": 5, "completed": 0, "failed": 5}
    assert await stack.witnessed(batch["id"], ANTHROPIC) == []
    assert await stack.simulator.calls(ANTHROPIC.creates) == before


@pytest.mark.surface("3.4 failed: errors, no files, 0/0/0")
async def test_an_invalid_file_fails_with_every_fault_and_its_line(stack: Stack, provider: Provider) -> None:
    content = chat_line("a", "one") + b"{broken\n" + chat_line("a", "again")
    batch = await stack.balanced(await stack.create(provider, content))

    assert batch["status"] == "failed"
    found = [(e["line"], e["code"]) for e in batch["errors"]["data"]]
    assert found == [(2, "invalid_json_line"), (3, "duplicate_custom_id")]
    assert batch["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert (batch["output_file_id"], batch["error_file_id"]) == (None, None)
    assert batch["floopy"]["lines"]["total"] == 0


@pytest.mark.surface("5 unknown input_file_id")
async def test_an_unknown_input_file_fails_the_batch_not_the_call(stack: Stack) -> None:
    async with stack.client() as client:
        created = await client.batches.create(
            input_file_id="file-doesnotexist", endpoint="/v1/chat/completions", completion_window="24h"
        )
    batch = await stack.balanced(created.id)

    assert batch["status"] == "failed"
    assert batch["errors"]["data"][0]["code"] == "invalid_request"


async def test_cancel_before_the_provider_has_anything(stack: Stack, provider: Provider) -> None:
    batch_id = await stack.create(provider, chat_file(50, tag="early", provider=provider))
    async with stack.client() as client:
        await client.batches.cancel(batch_id)
    batch = await stack.balanced(batch_id)

    assert batch["status"] == "cancelled"
    await stack.verified(batch_id)


@pytest.mark.surface("4.3 batch_cancelled: `response` is null; 3.4 cancelled: what was finished is kept")
async def test_cancel_keeps_what_was_finished(stack: Stack, provider: Provider) -> None:
    content = chat_file(100, tag="late", provider=provider)
    await stack.simulator.configure(auto=False)
    try:
        batch_id = await stack.create(provider, content)
        upstream = await eventually(lambda: _newest_upstream(stack, provider), what="a provider batch")
        await stack.simulator.advance(upstream, "in_progress", completed=40)
        async with stack.client() as client:
            await client.batches.cancel(batch_id)
        batch = await stack.balanced(batch_id)
    finally:
        await stack.simulator.configure(auto=True)
    output, errors = await stack.files(batch)

    assert batch["status"] == "cancelled"
    assert len(custom_ids(output)) == 40
    message = "This request was not executed because the batch was cancelled."
    for line in map(json.loads, errors.splitlines()):
        assert line == {
            "id": line["id"],
            "custom_id": line["custom_id"],
            "response": None,
            "error": {"code": "batch_cancelled", "message": message},
        }
    assert batch["request_counts"] == {"total": 100, "completed": 40, "failed": 60}
    assert sorted(custom_ids(output) + custom_ids(errors)) == sorted(custom_ids(content))
    await stack.verified(batch_id)
    await stack.witnessed(batch_id, provider)


async def _newest_upstream(stack: Stack, provider: Provider) -> str | None:
    """The one that nobody has advanced yet."""
    waiting = provider.untouched(await stack.simulator.batches())
    return waiting[-1] if waiting else None


@pytest.mark.surface("9.14")
async def test_another_organisation_sees_nothing_at_all(stack: Stack) -> None:
    async with stack.client() as client:
        uploaded = await client.files.create(file=("in.jsonl", chat_file(2, tag="own")), purpose="batch")
    batch_id = await stack.create(OPENAI, chat_file(2, tag="own"))
    _, org = await stack.floopy("orgs", "create", "other", "--plan", "pro")
    _, key = await stack.floopy("keys", "create", "--org", org["id"])
    async with stack.client(key["api_key"]) as other:
        for call in (
            other.batches.retrieve,
            other.batches.cancel,
        ):
            assert await _message(call, batch_id) == await _message(call, "batch_unknown")
        for call in (
            other.files.retrieve,
            other.files.delete,
            other.files.content,
        ):
            assert await _message(call, uploaded.id) == await _message(call, "file-unknown")
        assert [b.id async for b in other.batches.list()] == []
        assert [f.id async for f in other.files.list()] == []


async def _message(call: Any, name: str) -> str:
    """What the refusal says, with the id itself taken out."""
    with pytest.raises(openai.NotFoundError) as refused:
        await call(name)
    return json.dumps(refused.value.body).replace(name, "ID")


async def test_bad_keys_and_bad_bodies_get_openai_errors(stack: Stack) -> None:
    async with stack.client("wrong") as stranger:
        with pytest.raises(openai.AuthenticationError):
            await stranger.batches.list()
    async with stack.client() as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.files.create(file=("in.jsonl", b""), purpose="batch")
        assert refused.value.type == "invalid_request_error"
        with pytest.raises(openai.BadRequestError) as refused:
            await client.batches.create(
                input_file_id="file-x",
                endpoint="/v1/unknown",
                completion_window="24h",  # type: ignore[arg-type]
            )
        assert refused.value.code == "invalid_value"


async def test_a_renderer_killed_over_and_over_costs_no_line(stack: Stack) -> None:
    """It is a process of the reconciler's own, which starts another one."""
    reconciler = psutil.Process(stack.processes()["floopy-reconciler"])
    content = chat_file(6_000, tag="renderer")
    batch_id = await stack.create(OPENAI, content)
    killed: set[int] = set()

    async def killed_and_balanced() -> dict[str, Any] | None:
        """Three are killed as soon as they are seen: at their start, in a segment, or behind it."""
        for renderer in reconciler.children():
            if len(killed) < 3 and renderer.pid not in killed:
                killed.add(renderer.pid)
                renderer.kill()
        batch = await stack.batch(batch_id)
        return batch if batch["floopy"]["balanced"] and batch["status"] == "completed" else None

    batch = await eventually(killed_and_balanced, timeout=90, what="a balanced batch")

    assert killed
    output, _ = await stack.files(batch)
    assert custom_ids(output) == custom_ids(content)
    assert (await stack.verified(batch_id)).lines == 6_000
    assert reconciler.is_running()
