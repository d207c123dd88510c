"""Looking at provider batches, cancelling them, and finding those of an attempt."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from floopy_providers.account import Account, lines_of
from floopy_providers.servers import listener, odd_server

from floopy.simulation import OwnSimulator
from floopy_common.providers.port import (
    Ambiguous,
    BatchFault,
    NotFound,
    ProviderStatus,
    Unavailable,
)

MakeAccount = Callable[..., Account]
SILENT = [
    *({"kind": "status", "status": status} for status in (400, 401, 403, 408, 409, 429, 500, 503)),
    {"kind": "drop"},
    {"kind": "garbage"},
    {"kind": "garbage", "body": '{"data": [{"id": 1}]}'},
    {"kind": "truncate", "bytes": 30},
]
"""Answers that say nothing of a batch."""


async def lists(simulator: OwnSimulator, account: Account) -> list[dict[str, Any]]:
    return [call for call in await simulator.calls("batches.list") if call["key"] == account.key]


@pytest.mark.parametrize("action", [*SILENT, {"kind": "patch", "body": {"status": "resting"}}], ids=str)
async def test_a_look_that_says_nothing_is_unavailable(
    shared: OwnSimulator, account: Account, action: dict[str, Any]
) -> None:
    batch = await account.create(await account.upload(lines_of(1)))
    await shared.fault("batches.get", action, key=account.key)

    with pytest.raises(Unavailable):
        await account.client.get(batch.id)


async def test_a_batch_nobody_knows_is_not_found(account: Account) -> None:
    with pytest.raises(NotFound):
        await account.client.get("batch_0")
    with pytest.raises(NotFound):
        await account.client.cancel("batch_0")


async def test_an_id_never_leads_to_another_path(account: Account) -> None:
    for odd in ("../files", "batch_1/../../x", "batch?limit=1", "batch#1", "é"):
        with pytest.raises(NotFound):
            await account.client.get(odd)


async def test_a_finished_batch_shows_its_counts_and_files(account: Account) -> None:
    content = lines_of(3) + lines_of(1, "zyxwvutsrq", metadata={"sim": "status=400"})

    batch = await account.ended(content)

    assert (batch.total, batch.completed, batch.failed) == (4, 3, 1)
    assert batch.output_file_id is not None
    assert batch.error_file_id is not None
    assert batch.model == "gpt-4o-mini-2024-07-18"
    assert batch.errors == ()


async def test_a_failed_batch_shows_its_faults(account: Account) -> None:
    batch = await account.create(await account.upload(lines_of(1) + b"{}\n"))

    failed = await account.until(batch.id, "failed")

    assert failed.errors[0].line == 2
    assert failed.errors[0].code == "missing_required_parameter"
    assert isinstance(failed.errors[0], BatchFault)
    assert failed.total == 0


@pytest.mark.parametrize(
    "patch",
    [
        {"errors": None, "request_counts": None, "metadata": None, "model": None},
        {"errors": {"data": None}, "metadata": {"n": 1, "s": "x"}, "unknown": [1], "created_at": 1.5},
        {"errors": {"data": [{"message": "no"}]}, "request_counts": {"total": 3}},
    ],
    ids=str,
)
async def test_members_may_be_missing(shared: OwnSimulator, account: Account, patch: dict[str, Any]) -> None:
    batch = await account.create(await account.upload(lines_of(1)))
    await shared.fault("batches.get", {"kind": "patch", "body": patch}, key=account.key)

    seen = await account.client.get(batch.id)

    assert seen.id == batch.id
    assert all(isinstance(value, str) for value in seen.metadata.values())


async def test_a_redirect_is_not_followed(shared: OwnSimulator, account: Account) -> None:
    async with listener(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as inside:
        action = {"kind": "status", "status": 302, "headers": {"Location": f"{inside.url}/batches/1"}}
        for op in ("batches.get", "batches.list", "batches.cancel", "files.content", "files.delete"):
            await shared.fault(op, action, key=account.key)
        client = account.client
        for call in (
            client.get("batch_1"),
            client.find_attempt(account.sought(None)),
            client.cancel("batch_1"),
            account.download("file-1"),
            client.delete_input("file-1"),
        ):
            with pytest.raises(Unavailable, match="redirect"):
                await call

        assert inside.connections == 0


async def test_a_half_open_connection_ends(make_account: MakeAccount) -> None:
    async with listener() as server:
        account = make_account(server.url, read_timeout=0.2, create_timeout=0.2)
        with pytest.raises(Unavailable, match="in time"):
            await account.client.get("batch_1")
        with pytest.raises(Unavailable, match="in time"):
            await account.download("file-1")
        with pytest.raises(Ambiguous, match="in time"):
            await account.create("file-1")


async def test_cancel_asks_and_asks_again(shared: OwnSimulator, account: Account) -> None:
    batch = await account.create(await account.upload(lines_of(50)))

    first = await account.client.cancel(batch.id)
    ended = await account.until(batch.id, "cancelled")
    again = await account.client.cancel(batch.id)

    assert first.status is ProviderStatus.CANCELLING
    assert again == ended


@pytest.mark.parametrize("status", [400, 409])
async def test_cancel_of_an_ended_batch_gives_it_as_it_is(
    shared: OwnSimulator, account: Account, status: int
) -> None:
    batch = await account.ended(lines_of(1))
    await shared.fault("batches.cancel", {"kind": "status", "status": status}, key=account.key)

    assert await account.client.cancel(batch.id) == batch
    assert await account.client.cancel(batch.id) == batch  # the simulator's own 409


@pytest.mark.parametrize("action", SILENT, ids=str)
async def test_a_cancel_that_was_not_taken_is_unavailable(
    shared: OwnSimulator, account: Account, action: dict[str, Any]
) -> None:
    batch = await account.create(await account.upload(lines_of(1)))
    await shared.advance(batch.id, "in_progress")
    await shared.fault("batches.cancel", action, key=account.key)

    with pytest.raises(Unavailable):
        await account.client.cancel(batch.id)


async def test_an_attempt_is_found_by_its_file_or_by_its_metadata(account: Account) -> None:
    file_id, other = await account.upload(lines_of(1)), await account.upload(lines_of(1))
    by_file = await account.create(file_id, "att_else")
    by_metadata = await account.create(other, "att_1")
    await account.create(other, "att_2")

    assert sorted(await account.found(file_id)) == sorted([by_file.id, by_metadata.id])
    assert await account.found(None) == [by_metadata.id]
    assert await account.found("file-none", "att_none") == []


@pytest.mark.parametrize("action", SILENT, ids=str)
async def test_a_list_that_says_nothing_is_no_look(
    shared: OwnSimulator, account: Account, action: dict[str, Any]
) -> None:
    file_id = await account.upload(lines_of(1))
    await account.create(file_id)
    await shared.fault("batches.list", action, key=account.key)

    with pytest.raises(Unavailable):
        await account.found(file_id)

    assert len(await lists(shared, account)) == 1


async def test_a_later_page_that_says_nothing_is_no_look(
    simulator: OwnSimulator, make_account: MakeAccount
) -> None:
    account = make_account(simulator.openai_base_url)
    await _many(account, 101)
    await simulator.fault("batches.list", {"kind": "status", "status": 500}, skip=1)

    with pytest.raises(Unavailable):
        await account.found("file-none")


async def _many(account: Account, count: int) -> str:
    """`count` batches of one file that nobody looks for; the id of the file."""
    file_id = await account.upload(lines_of(1))
    for start in range(0, count, 10):
        await asyncio.gather(*(account.create(file_id, "att_many") for _ in range(min(10, count - start))))
    return file_id


async def test_every_page_is_read_until_the_end(simulator: OwnSimulator, make_account: MakeAccount) -> None:
    account = make_account(simulator.openai_base_url)
    await simulator.configure(auto=False)
    file_id = await account.upload(lines_of(1))
    oldest = await account.create(file_id)
    await _many(account, 215)

    assert await account.found(file_id) == [oldest.id]
    assert len(await lists(simulator, account)) == 3


async def test_what_is_older_than_the_attempt_is_not_read(
    simulator: OwnSimulator, make_account: MakeAccount
) -> None:
    account = make_account(simulator.openai_base_url)
    await simulator.configure(auto=False)
    old = await _many(account, 215)
    await simulator.advance_clock(3600)
    file_id = await account.upload(lines_of(1))
    ours = await account.create(file_id)
    account.since = ours.created_at + timedelta(seconds=0.9)

    assert await account.found(file_id) == [ours.id]
    assert len(await lists(simulator, account)) == 1
    assert await account.found(old, "att_many") != []  # those on the page that was read


async def test_a_list_that_lags_shows_the_batch_later(
    simulator: OwnSimulator, make_account: MakeAccount
) -> None:
    account = make_account(simulator.openai_base_url)
    await simulator.configure(list_lag=60)
    file_id = await account.upload(lines_of(1))
    batch = await account.create(file_id)

    assert await account.found(file_id) == []
    await simulator.advance_clock(61)
    assert await account.found(file_id) == [batch.id]


def _entry(number: int, created_at: int) -> dict[str, Any]:
    return {
        "id": f"batch_{number}",
        "status": "completed",
        "created_at": created_at,
        "input_file_id": f"file-{number}",
    }


async def test_a_list_that_is_oldest_first_is_read_to_its_end(make_account: MakeAccount) -> None:
    entries = [_entry(number, 1_000 + number) for number in range(250)]

    async def answer(request: web.Request) -> web.Response:
        after = request.query.get("after")
        start = 0 if after is None else int(after.removeprefix("batch_")) + 1
        page = entries[start : start + 100]
        return web.json_response({"data": page, "has_more": start + 100 < len(entries)})

    async with odd_server(answer) as url:
        account = make_account(url)
        account.since = datetime.fromtimestamp(1_200, UTC)
        assert await account.found("file-249") == ["batch_249"]


async def test_cancel_of_a_batch_that_is_being_cancelled_may_be_refused(make_account: MakeAccount) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.method == "POST":
            return web.json_response({"error": {"message": "Already."}}, status=409)
        return web.json_response({**_entry(1, 1_000), "status": "cancelling"})

    async with odd_server(answer) as url:
        seen = await make_account(url).client.cancel("batch_1")

    assert seen.status is ProviderStatus.CANCELLING


async def test_a_moment_within_a_second_leaves_out_nothing_of_that_second(
    make_account: MakeAccount,
) -> None:
    entries = [_entry(0, 1_001), *(_entry(number, 1_000) for number in range(1, 102))]

    async def answer(request: web.Request) -> web.Response:
        first = "after" not in request.query
        return web.json_response({"data": entries[:100] if first else entries[100:], "has_more": first})

    async with odd_server(answer) as url:
        account = make_account(url)
        account.since = datetime.fromtimestamp(1_000.7, UTC)  # the provider shows whole seconds
        assert await account.found("file-101") == ["batch_101"]


async def test_a_list_without_has_more_ends_with_an_empty_page(make_account: MakeAccount) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"data": [] if "after" in request.query else [_entry(1, 2_000_000_000)]})

    async with odd_server(answer) as url:
        assert await make_account(url).found("file-1") == ["batch_1"]


async def test_a_list_that_goes_round_in_circles_is_no_look(make_account: MakeAccount) -> None:
    calls = []

    async def answer(request: web.Request) -> web.Response:
        calls.append(request.path_qs)
        return web.json_response({"data": [_entry(1, 2_000_000_000)], "has_more": True})

    async with odd_server(answer) as url:
        with pytest.raises(Unavailable, match="repeats"):
            await make_account(url).found("file-1")

    assert len(calls) == 2


async def test_a_list_without_end_is_no_look(
    make_account: MakeAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("floopy_common.providers.openai.client.MAX_PAGES", 5)

    async def answer(request: web.Request) -> web.Response:
        number = int(request.query.get("after", "batch_0").removeprefix("batch_")) + 1
        return web.json_response({"data": [_entry(number, 2_000_000_000)], "has_more": True})

    async with odd_server(answer) as url:
        with pytest.raises(Unavailable, match="pages"):
            await make_account(url).found("file-1")


async def test_an_answer_larger_than_any_honest_one_is_not_read(make_account: MakeAccount) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        piece = b" " * 1_000_000
        for _ in range(50):
            await response.write(piece)
        return response

    async with odd_server(answer) as url:
        with pytest.raises(Unavailable, match="more than"):
            await make_account(url).client.get("batch_1")


async def test_no_cookie_and_no_other_credential_travels(make_account: MakeAccount) -> None:
    seen = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(dict(request.headers))
        response = web.Response(text=json.dumps(_entry(1, 1)), content_type="application/json")
        response.set_cookie("session", "theirs")
        return response

    async with odd_server(answer) as url:
        account = make_account(url, "sk-mine")
        await account.client.get("batch_1")
        await account.client.get("batch_1")

    assert [headers["Authorization"] for headers in seen] == ["Bearer sk-mine"] * 2
    assert all("Cookie" not in headers for headers in seen)
