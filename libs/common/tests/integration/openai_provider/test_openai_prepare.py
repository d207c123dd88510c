"""Uploading an attempt's input: streamed, whole or not at all."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from floopy_providers.account import Account, lines_of

from floopy.backends.ports import free_port
from floopy.simulation import OwnSimulator
from floopy_common.domain.errors import BlobMissing
from floopy_common.providers.http import WrongSize
from floopy_common.providers.port import AttemptInput, NotAccepted, NotFound, Unavailable

MakeAccount = Callable[..., Account]


async def uploads(simulator: OwnSimulator, account: Account) -> list[dict[str, Any]]:
    return [call for call in await simulator.calls("files.create") if call["key"] == account.key]


async def test_the_provider_gets_the_bytes_as_they_are(account: Account) -> None:
    content = lines_of(500) + "é\r\n--floopy\r\n".encode()

    file_id = await account.upload(content)

    assert await account.download(file_id) == content


async def test_the_name_is_kept(shared: OwnSimulator, account: Account) -> None:
    file_id = await account.upload(lines_of(1), 'floopy-"odd".jsonl')
    await shared.fault("files.list", {"kind": "patch", "body": {}}, key=account.key)

    listed = await account.client._api.read("/files", lambda body: body)  # the port has no listing of files

    assert file_id.encode() in listed
    assert b'floopy-\\"odd\\".jsonl' in listed


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 429])
async def test_refused_uploads_are_not_accepted(shared: OwnSimulator, account: Account, status: int) -> None:
    await shared.fault("files.create", {"kind": "status", "status": status}, key=account.key)

    with pytest.raises(NotAccepted) as refused:
        await account.upload(lines_of(1))

    assert (refused.value.status, refused.value.retryable) == (status, status == 429)
    assert len(await uploads(shared, account)) == 1


@pytest.mark.parametrize(
    "action",
    [
        *({"kind": "status", "status": status} for status in (408, 409, 500, 503)),
        {"kind": "drop", "when": "before"},
        {"kind": "drop", "when": "after"},
        {"kind": "garbage"},
        {"kind": "garbage", "body": '{"object": "file"}'},
        {"kind": "truncate", "bytes": 9},
    ],
    ids=str,
)
async def test_an_upload_nobody_knows_about_is_unavailable(
    shared: OwnSimulator, account: Account, action: dict[str, Any]
) -> None:
    await shared.fault("files.create", action, key=account.key)

    with pytest.raises(Unavailable):
        await account.upload(lines_of(1))

    assert len(await uploads(shared, account)) == 1


async def test_no_connection_is_unavailable(make_account: MakeAccount) -> None:
    with pytest.raises(Unavailable):
        await make_account(f"http://127.0.0.1:{free_port()}/v1").upload(lines_of(1))


async def test_silence_is_unavailable(shared: OwnSimulator, make_account: MakeAccount) -> None:
    account = make_account(shared.openai_base_url, read_timeout=0.3)
    fault = await shared.fault("files.create", {"kind": "hold"}, key=account.key)

    with pytest.raises(Unavailable, match="in time"):
        await account.upload(lines_of(1))

    await shared.release(fault)


@pytest.mark.parametrize("announced", [-1, 1])
async def test_another_size_than_announced_leaves_no_file(
    shared: OwnSimulator, account: Account, announced: int
) -> None:
    content = lines_of(20)

    async def chunks() -> AsyncIterator[bytes]:
        yield content

    with pytest.raises(WrongSize):
        await account.client.prepare(AttemptInput("in.jsonl", len(content) + announced, chunks()))

    assert not any(call["accepted"] for call in await uploads(shared, account))


async def test_what_the_input_raises_is_raised(shared: OwnSimulator, account: Account) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"{"
        raise BlobMissing("gone")

    with pytest.raises(BlobMissing):
        await account.client.prepare(AttemptInput("in.jsonl", 1_000, chunks()))

    assert not any(call["accepted"] for call in await uploads(shared, account))


async def test_deleting_twice_is_fine(account: Account) -> None:
    file_id = await account.upload(lines_of(1))

    await account.client.delete_input(file_id)
    await account.client.delete_input(file_id)

    with pytest.raises(NotFound):
        await account.download(file_id)


@pytest.mark.parametrize(
    "action",
    [{"kind": "status", "status": 500}, {"kind": "drop"}, {"kind": "status", "status": 401}],
    ids=str,
)
async def test_a_delete_that_did_not_come_through_is_unavailable(
    shared: OwnSimulator, account: Account, action: dict[str, Any]
) -> None:
    file_id = await account.upload(lines_of(1))
    await shared.fault("files.delete", action, key=account.key)

    with pytest.raises(Unavailable):
        await account.client.delete_input(file_id)
