"""Downloading results: the bytes as they are, or a clear word that they are not whole."""

import gzip
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from floopy_providers.account import Account, lines_of
from floopy_providers.servers import odd_server

from floopy.simulation import OwnSimulator
from floopy_common.providers.openai.result import OpenAiResults
from floopy_common.providers.port import NotFound, Unavailable

MakeAccount = Callable[..., Account]


async def test_results_come_verbatim_and_can_be_read(account: Account) -> None:
    batch = await account.ended(lines_of(300))
    assert batch.output_file_id is not None

    async with account.client.open_result(batch.output_file_id) as result:
        content = b"".join([piece async for piece in result.chunks])

    assert result.content_length == len(content)
    lines = content.split(b"\n")[:-1]
    answers = [OpenAiResults().parse_answer(line, b"{}", 0)[0] for line in lines]
    assert sorted(OpenAiResults().read_key(line) or "" for line in lines) == sorted(
        f"abcdefghij-{number}" for number in range(1, 301)
    )
    assert all(answer.ok and answer.usage and answer.finish_reason == "stop" for answer in answers)


async def test_a_short_download_is_unavailable_while_it_is_read(
    shared: OwnSimulator, account: Account
) -> None:
    batch = await account.ended(lines_of(50))
    await shared.fault("files.content", {"kind": "truncate", "bytes": 5_000}, key=account.key)
    got = 0

    with pytest.raises(Unavailable, match="broke off"):
        async with account.client.open_result(str(batch.output_file_id)) as result:
            async for piece in result.chunks:
                got += len(piece)

    assert result.content_length is not None
    assert got <= 5_000 < result.content_length


async def test_a_short_download_without_a_length_cannot_be_told(
    shared: OwnSimulator, account: Account
) -> None:
    batch = await account.ended(lines_of(50))
    action = {"kind": "truncate", "bytes": 5_000, "mode": "chunked"}
    await shared.fault("files.content", action, key=account.key)

    async with account.client.open_result(str(batch.output_file_id)) as result:
        content = b"".join([piece async for piece in result.chunks])

    assert result.content_length is None
    assert len(content) == 5_000


async def test_an_unknown_file_is_not_found(account: Account) -> None:
    with pytest.raises(NotFound):
        await account.download("file-none")


@pytest.mark.parametrize(
    "action",
    [*({"kind": "status", "status": status} for status in (401, 429, 500)), {"kind": "drop"}],
    ids=str,
)
async def test_a_download_that_does_not_begin_is_unavailable(
    shared: OwnSimulator, account: Account, action: dict[str, Any]
) -> None:
    batch = await account.ended(lines_of(1))
    await shared.fault("files.content", action, key=account.key)

    with pytest.raises(Unavailable):
        await account.download(str(batch.output_file_id))


async def test_a_compressed_download_is_refused_unread(make_account: MakeAccount) -> None:
    bomb = gzip.compress(b"0" * 50_000_000)

    async def answer(request: web.Request) -> web.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    async with odd_server(answer) as url:
        with pytest.raises(Unavailable, match="encoding"):
            await make_account(url).download("file-1")


async def test_what_the_reader_raises_is_not_blamed_on_the_provider(account: Account) -> None:
    batch = await account.ended(lines_of(1))

    with pytest.raises(OSError, match="disk full"):
        async with account.client.open_result(str(batch.output_file_id)):
            raise OSError("disk full")


async def test_a_reader_may_leave_early(account: Account) -> None:
    batch = await account.ended(lines_of(2_000))

    for _ in range(3):
        async with account.client.open_result(str(batch.output_file_id)) as result:
            await anext(result.chunks)

    assert (await account.client.get(batch.id)).status == "completed"
