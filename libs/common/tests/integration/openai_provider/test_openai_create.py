"""Creating a provider batch: what certainly did not happen, and what may have."""

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from floopy_providers.account import CHAT, Account, lines_of
from floopy_providers.servers import listener

from floopy.backends.ports import free_port
from floopy.simulation import OwnSimulator
from floopy_common.domain.errors import LeaseLost
from floopy_common.providers.port import Ambiguous, NotAccepted, ProviderStatus

MakeAccount = Callable[..., Account]


async def creates(simulator: OwnSimulator, account: Account) -> list[dict[str, Any]]:
    return [call for call in await simulator.calls("batches.create") if call["key"] == account.key]


async def test_create_gives_the_batch_and_marks_it(shared: OwnSimulator, account: Account) -> None:
    file_id = await account.upload(lines_of(2))

    batch = await account.create(file_id, "att_7", metadata={"team": "blue"})

    assert batch.status is ProviderStatus.VALIDATING
    assert batch.input_file_id == file_id
    assert batch.metadata == {"team": "blue", "floopy_attempt": "att_7", "floopy_nonce": "abcdefghij"}
    assert abs(datetime.now(UTC) - batch.created_at) < timedelta(seconds=10)
    assert await account.client.get(batch.id) == batch
    [ledger] = [row for row in await shared.batches() if row["id"] == batch.id]
    assert ledger["endpoint"] == CHAT


async def test_our_two_keys_have_room_beside_sixteen_of_others(account: Account) -> None:
    theirs = {f"key {number}": "x" for number in range(16)}

    batch = await account.create(await account.upload(lines_of(1)), metadata=theirs)

    assert len(batch.metadata) == 16
    assert batch.metadata["floopy_attempt"] == "att_1"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 429])
async def test_definite_refusals_are_not_accepted(
    shared: OwnSimulator, account: Account, status: int
) -> None:
    file_id = await account.upload(lines_of(1))
    await shared.fault("batches.create", {"kind": "status", "status": status}, key=account.key)

    with pytest.raises(NotAccepted) as refused:
        await account.create(file_id)

    assert refused.value.status == status
    assert refused.value.retryable is (status == 429)
    assert not refused.value.queue_full
    assert len(await creates(shared, account)) == 1


@pytest.mark.parametrize("status", [402, 405, 408, 409, 425, 500, 502, 503, 504, 529])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_other_statuses_are_ambiguous(
    shared: OwnSimulator, account: Account, status: int, when: str
) -> None:
    file_id = await account.upload(lines_of(1))
    action = {"kind": "status", "status": status, "when": when, "headers": {"retry-after": "3"}}
    await shared.fault("batches.create", action, key=account.key)

    with pytest.raises(Ambiguous) as unknown:
        await account.create(file_id)

    assert (unknown.value.status, unknown.value.retry_after) == (status, 3.0)
    assert len(await account.found(file_id)) == (1 if when == "after" else 0)
    assert len(await creates(shared, account)) == 1


@pytest.mark.parametrize(
    "action",
    [
        {"kind": "drop", "when": "after"},
        {"kind": "garbage"},
        {"kind": "garbage", "body": '{"id": "batch_1"}'},
        {"kind": "garbage", "body": "", "status": 201},
        {"kind": "truncate", "bytes": 20},
        {"kind": "truncate", "bytes": 20, "mode": "chunked"},
        {"kind": "patch", "body": {"status": "resting"}},
        {"kind": "patch", "body": {"created_at": 1e30}},
    ],
    ids=str,
)
async def test_lost_and_unreadable_answers_are_ambiguous_and_can_be_found(
    shared: OwnSimulator, account: Account, action: dict[str, Any]
) -> None:
    file_id = await account.upload(lines_of(1))
    await shared.fault("batches.create", action, key=account.key)

    with pytest.raises(Ambiguous):
        await account.create(file_id)

    assert len(await account.found(file_id)) == 1
    assert len(await creates(shared, account)) == 1


async def test_dropped_before_it_took_effect_is_ambiguous_too(shared: OwnSimulator, account: Account) -> None:
    file_id = await account.upload(lines_of(1))
    await shared.fault("batches.create", {"kind": "drop"}, key=account.key)

    with pytest.raises(Ambiguous):
        await account.create(file_id)

    assert await account.found(file_id) == []


async def test_silence_after_the_request_is_ambiguous(
    shared: OwnSimulator, make_account: MakeAccount
) -> None:
    account = make_account(shared.openai_base_url, create_timeout=0.5)
    file_id = await account.upload(lines_of(1))
    fault = await shared.fault("batches.create", {"kind": "hold", "when": "after"}, key=account.key)

    with pytest.raises(Ambiguous, match="in time"):
        await account.create(file_id)

    await shared.release(fault)
    assert len(await account.found(file_id)) == 1


async def test_a_port_that_nobody_listens_on_is_not_accepted(make_account: MakeAccount) -> None:
    with pytest.raises(NotAccepted) as refused:
        await make_account(f"http://127.0.0.1:{free_port()}/v1").create("file-1")

    assert refused.value.status is None
    assert refused.value.retryable


async def test_an_unknown_host_is_not_accepted(make_account: MakeAccount) -> None:
    with pytest.raises(NotAccepted) as refused:
        await make_account("http://nowhere.invalid/v1").create("file-1")

    assert refused.value.retryable


async def test_no_tls_is_not_accepted(shared: OwnSimulator, make_account: MakeAccount) -> None:
    account = make_account(shared.openai_base_url.replace("http:", "https:"))

    with pytest.raises(NotAccepted) as refused:
        await account.create("file-1")

    assert isinstance(refused.value.__cause__, ssl.SSLError | OSError)
    assert await creates(shared, account) == []


async def test_a_hang_up_without_an_answer_is_ambiguous(make_account: MakeAccount) -> None:
    async with listener(b"") as server:
        with pytest.raises(Ambiguous):
            await make_account(server.url).create("file-1")

    assert b"POST /v1/batches" in server.received
    assert server.connections == 1


async def test_what_before_send_raises_stops_the_call_before_a_byte_has_left(
    make_account: MakeAccount,
) -> None:
    def fence() -> None:
        raise LeaseLost("somebody else has it")

    async with listener() as server:
        with pytest.raises(LeaseLost, match="somebody else"):
            await make_account(server.url).create("file-1", before_send=fence)

        assert server.connections <= 1
        assert not server.received


async def test_before_send_runs_when_the_connection_stands(make_account: MakeAccount) -> None:
    connected: list[int] = []
    async with listener(b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n") as server:
        with pytest.raises(NotAccepted):
            await make_account(server.url).create(
                "file-1", before_send=lambda: connected.append(len(server.received))
            )

    assert connected == [0]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_never_followed(shared: OwnSimulator, account: Account, status: int) -> None:
    file_id = await account.upload(lines_of(1))
    async with listener(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as inside:
        action = {"kind": "status", "status": status, "headers": {"Location": f"{inside.url}/batches"}}
        await shared.fault("batches.create", action, key=account.key)

        with pytest.raises(NotAccepted, match="redirect") as refused:
            await account.create(file_id)

        assert inside.connections == 0
    assert not refused.value.retryable


@pytest.mark.parametrize("status", [400, 429])
@pytest.mark.parametrize(
    "error",
    [
        {"code": "token_limit_exceeded", "message": "No."},
        {"code": None, "message": "Enqueued token limit reached for gpt-4o-mini in organization org-1."},
        {"code": None, "message": "Enqueued request limit reached for gpt-4o-mini."},
    ],
    ids=lambda error: error["message"][:22],
)
async def test_a_full_queue_is_told_apart(
    shared: OwnSimulator, account: Account, status: int, error: dict[str, Any]
) -> None:
    file_id = await account.upload(lines_of(1))
    action = {"kind": "status", "status": status, "body": {"error": {"type": "x", "param": None, **error}}}
    await shared.fault("batches.create", action, key=account.key)

    with pytest.raises(NotAccepted) as refused:
        await account.create(file_id)

    assert refused.value.queue_full
    assert refused.value.retryable


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
async def test_what_the_provider_asks_to_wait_is_passed_on(
    shared: OwnSimulator, account: Account, headers: dict[str, str], seconds: float | None
) -> None:
    file_id = await account.upload(lines_of(1))
    action = {"kind": "status", "status": 429, "headers": headers}
    await shared.fault("batches.create", action, key=account.key)

    with pytest.raises(NotAccepted) as refused:
        await account.create(file_id)

    assert refused.value.retry_after == seconds


async def test_a_moment_to_wait_for_becomes_seconds(shared: OwnSimulator, account: Account) -> None:
    file_id = await account.upload(lines_of(1))
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    action = {"kind": "status", "status": 429, "headers": {"retry-after": moment}}
    await shared.fault("batches.create", action, key=account.key)

    with pytest.raises(NotAccepted) as refused:
        await account.create(file_id)

    assert refused.value.retry_after == pytest.approx(60, abs=5)


@pytest.mark.parametrize("status", [400, 401, 403, 500])
async def test_messages_never_show_a_key(
    shared: OwnSimulator, make_account: MakeAccount, status: int
) -> None:
    account = make_account(shared.openai_base_url, "sk-a canary that looks like no key")
    said = f"Incorrect key {account.key}, nor sk-canary-0123456789, Bearer canary-0123456789.\nSee\tdocs."
    action = {"kind": "status", "status": status, "body": {"error": {"message": said}}}
    await shared.fault("batches.create", action, key=account.key)

    with pytest.raises((NotAccepted, Ambiguous)) as refused:
        await account.create("file-1")

    text = f"{refused.value} {refused.value.message} {refused.value!r}"
    assert "canary" not in text
    assert "\n" not in text


async def test_a_message_is_short_and_a_code_is_kept(shared: OwnSimulator, account: Account) -> None:
    error = {"message": "m" * 5_000, "code": "model_not_found"}
    action = {"kind": "status", "status": 404, "body": {"error": error}}
    await shared.fault("batches.create", action, key=account.key)

    with pytest.raises(NotAccepted) as refused:
        await account.create("file-1")

    assert refused.value.code == "model_not_found"
    assert len(refused.value.message) == 500


@pytest.mark.parametrize("body", ["<html>", '{"error": "words"}', '["error"]', ""])
async def test_an_error_that_cannot_be_read_counts_by_its_status(
    shared: OwnSimulator, account: Account, body: str
) -> None:
    await shared.fault("batches.create", {"kind": "status", "status": 400, "body": body}, key=account.key)

    with pytest.raises(NotAccepted, match="status 400"):
        await account.create("file-1")
