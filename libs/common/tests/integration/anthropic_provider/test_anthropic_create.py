"""Creating a message batch: what certainly did not happen, what may have, and what is sent at all."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from floopy_providers.claude import NONCE, Claude, elements_of
from floopy_providers.servers import listener, odd_server

from floopy.backends.ports import free_port
from floopy.simulation import OwnSimulator
from floopy_common.domain.errors import BlobCorrupt, LeaseLost
from floopy_common.providers.http import WrongSize
from floopy_common.providers.port import (
    Ambiguous,
    AttemptInput,
    CreateRequest,
    NotAccepted,
    ProviderStatus,
)

CREATE = "messages.batches.create"
MakeClaude = Callable[..., Claude]


async def creates(simulator: OwnSimulator, claude: Claude) -> list[dict[str, Any]]:
    return [call for call in await simulator.calls(CREATE) if call["key"] == claude.key]


async def made(simulator: OwnSimulator, claude: Claude) -> list[dict[str, Any]]:
    return [batch for batch in await simulator.batches() if batch["key"] == claude.key]


async def test_create_carries_its_input(shared: OwnSimulator, claude: Claude) -> None:
    assert await claude.client.prepare(AttemptInput("att_1", 3, _never())) is None

    batch = await claude.create(elements_of(3))

    assert (batch.status, batch.total, batch.completed, batch.failed) == (ProviderStatus.IN_PROGRESS, 3, 0, 0)
    assert (batch.input_file_id, batch.output_file_id, batch.metadata) == (None, None, {})
    assert abs(datetime.now(UTC) - batch.created_at) < timedelta(seconds=10)
    assert (await claude.client.get(batch.id)).id == batch.id
    assert [row["lines"] for row in await made(shared, claude)] == [3]


async def _never() -> AsyncIterator[bytes]:
    raise AssertionError("nothing is read before the create")
    yield b""


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_definite_refusals_are_not_accepted(shared: OwnSimulator, claude: Claude, status: int) -> None:
    await shared.fault(CREATE, {"kind": "status", "status": status}, key=claude.key)

    with pytest.raises(NotAccepted) as refused:
        await claude.create(elements_of(1))

    assert refused.value.status == status
    assert not refused.value.retryable
    assert refused.value.too_large is (status == 413)
    assert claude.key not in str(refused.value)
    assert len(await creates(shared, claude)) == 1


@pytest.mark.edge(6)
async def test_what_is_too_large_is_said_by_a_page_and_understood(
    shared: OwnSimulator, claude: Claude
) -> None:
    await shared.configure(max_batch_bytes=10_000)
    try:
        with pytest.raises(NotAccepted) as refused:
            await claude.create(elements_of(200))
    finally:
        await shared.configure(max_batch_bytes=256_000_000)

    assert (refused.value.status, refused.value.too_large, refused.value.retryable) == (413, True, False)
    assert await made(shared, claude) == []


@pytest.mark.edge(5)
async def test_a_rate_limit_is_waited_for_as_long_as_it_says(shared: OwnSimulator, claude: Claude) -> None:
    action = {"kind": "status", "status": 429, "headers": {"retry-after": "3"}}
    await shared.fault(CREATE, action, key=claude.key)

    with pytest.raises(NotAccepted) as refused:
        await claude.create(elements_of(1))

    assert (refused.value.retryable, refused.value.retry_after, refused.value.blocked) == (True, 3.0, False)


@pytest.mark.edge(5)
@pytest.mark.parametrize("status", [429, 402])
async def test_a_spending_limit_or_an_unpaid_bill_blocks_the_account(
    shared: OwnSimulator, claude: Claude, status: int
) -> None:
    await shared.fault(CREATE, {"kind": "status", "status": status}, key=claude.key)

    with pytest.raises(NotAccepted) as refused:
        await claude.create(elements_of(1))

    assert (refused.value.blocked, refused.value.retryable) == (True, True)


async def test_a_full_queue_is_told_from_other_limits(shared: OwnSimulator, claude: Claude) -> None:
    await shared.configure(queued_request_limit=2)
    try:
        with pytest.raises(NotAccepted) as refused:
            await claude.create(elements_of(3))
    finally:
        await shared.configure(queued_request_limit=None)

    assert (refused.value.queue_full, refused.value.retryable, refused.value.blocked) == (True, True, False)


@pytest.mark.edge(4)
@pytest.mark.parametrize("status", [405, 408, 409, 425, 500, 502, 503, 504, 529])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_other_statuses_are_ambiguous(
    shared: OwnSimulator, claude: Claude, status: int, when: str
) -> None:
    await shared.fault(CREATE, {"kind": "status", "status": status, "when": when}, key=claude.key)

    with pytest.raises(Ambiguous) as unknown:
        await claude.create(elements_of(2))

    assert unknown.value.status == status
    assert len((await claude.find(2)).possible) == (1 if when == "after" else 0)
    assert len(await creates(shared, claude)) == 1


@pytest.mark.edge(3)
@pytest.mark.parametrize(
    "action",
    [
        {"kind": "drop", "when": "after"},
        {"kind": "garbage"},
        {"kind": "garbage", "body": '{"id": "msgbatch_1"}'},
        {"kind": "truncate", "bytes": 20},
        {"kind": "patch", "body": {"processing_status": "resting"}},
        {"kind": "patch", "body": {"created_at": "tomorrow"}},
    ],
    ids=str,
)
async def test_lost_and_unreadable_answers_are_ambiguous_and_can_be_found(
    shared: OwnSimulator, claude: Claude, action: dict[str, Any]
) -> None:
    await shared.fault(CREATE, action, key=claude.key)

    with pytest.raises(Ambiguous):
        await claude.create(elements_of(1))

    assert len((await claude.find(1)).possible) == 1
    assert len(await creates(shared, claude)) == 1


async def test_silence_after_the_request_is_ambiguous(shared: OwnSimulator, make_claude: MakeClaude) -> None:
    claude = make_claude(shared.anthropic_base_url, create_timeout=0.5)
    fault = await shared.fault(CREATE, {"kind": "hold", "when": "after"}, key=claude.key)

    with pytest.raises(Ambiguous, match="in time"):
        await claude.create(elements_of(1))

    await shared.release(fault)
    assert len(await made(shared, claude)) == 1


async def test_a_port_that_nobody_listens_on_is_not_accepted(make_claude: MakeClaude) -> None:
    with pytest.raises(NotAccepted) as refused:
        await make_claude(f"http://127.0.0.1:{free_port()}").create(elements_of(1))

    assert refused.value.status is None
    assert refused.value.retryable


async def test_silence_in_mid_request_left_nothing_behind(make_claude: MakeClaude) -> None:
    """Without its last bytes a create is no JSON, whoever has read what came before."""
    async with odd_server(_hangs_up) as url:
        claude = make_claude(url.removesuffix("/v1"))
        with pytest.raises(NotAccepted) as refused:
            await claude.create(elements_of(200_000, model="claude-haiku-4-5"))

    assert refused.value.retryable


async def _hangs_up(request: web.BaseRequest) -> web.StreamResponse:
    await request.content.readany()
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def test_a_create_that_may_not_be_sent_is_not(shared: OwnSimulator, claude: Claude) -> None:
    def refuse() -> None:
        raise LeaseLost("shard")

    with pytest.raises(LeaseLost):
        await claude.create(elements_of(1), before_send=refuse)

    assert await creates(shared, claude) == []


async def test_a_create_is_stopped_before_its_last_byte_too(shared: OwnSimulator, claude: Claude) -> None:
    asked: list[None] = []

    def refuse_the_second_time() -> None:
        asked.append(None)
        if len(asked) == 2:
            raise LeaseLost("shard")

    with pytest.raises(LeaseLost):
        await claude.create(elements_of(50), before_send=refuse_the_second_time)

    assert await made(shared, claude) == []


@pytest.mark.parametrize("announced", [-10, 10])
async def test_a_wrong_size_is_noticed_before_anything_exists(
    shared: OwnSimulator, claude: Claude, announced: int
) -> None:
    content = elements_of(3)

    with pytest.raises(NotAccepted) as refused:
        await claude.create(content, size=len(content) + announced)

    assert isinstance(refused.value.__cause__, Exception)
    assert WrongSize.__name__ in refused.value.message
    assert await made(shared, claude) == []


async def test_an_input_that_breaks_off_left_nothing_behind(shared: OwnSimulator, claude: Claude) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"{"
        raise BlobCorrupt("chunk 7")

    with pytest.raises(BlobCorrupt):
        await claude.client.create(
            CreateRequest(
                "att_1",
                NONCE,
                "/v1/chat/completions",
                None,
                lambda: None,
                input=AttemptInput("att_1", 500, broken()),
            )
        )

    assert await made(shared, claude) == []


async def test_the_request_says_its_length_version_and_key(make_claude: MakeClaude) -> None:
    async with listener(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n") as heard:
        claude = make_claude(heard.url.removesuffix("/v1"), "sk-ant-secret")
        with pytest.raises(NotAccepted):
            await claude.create(elements_of(1))

    head, _, _ = bytes(heard.received).partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    assert lines[0] == "post /v1/messages/batches http/1.1"
    assert f"content-length: {len(elements_of(1)) + 15}" in lines
    assert {"x-api-key: sk-ant-secret", "anthropic-version: 2023-06-01"} <= set(lines)
    assert not any(line.startswith(("authorization", "transfer-encoding", "expect")) for line in lines)
