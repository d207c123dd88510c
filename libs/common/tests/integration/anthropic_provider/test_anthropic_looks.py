"""Looking at message batches: how they stand, which may be an attempt's, and where results come from."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from floopy_providers.claude import Claude, elements_of
from floopy_providers.servers import listener

from floopy.simulation import OwnSimulator
from floopy_common.providers.port import NotFound, ProviderStatus, Unavailable

GET, RESULTS, LIST, CANCEL = (f"messages.batches.{op}" for op in ("get", "results", "list", "cancel"))
SILENT = [
    {"kind": "status", "status": 429, "headers": {"retry-after": "7"}},
    {"kind": "status", "status": 529},
    {"kind": "drop"},
    {"kind": "garbage"},
]
MakeClaude = Callable[..., Claude]


@pytest.fixture
async def by_hand(shared: OwnSimulator) -> Any:
    """Batches stay as they are until a test moves them."""
    await shared.configure(auto=False)
    yield shared
    await shared.configure(auto=True)


async def test_nothing_is_counted_before_the_end(by_hand: OwnSimulator, claude: Claude) -> None:
    batch = await claude.create(elements_of(3))
    await by_hand.advance(batch.id, "in_progress", completed=2)

    seen = await claude.client.get(batch.id)

    assert (seen.status, seen.total, seen.completed, seen.failed) == (ProviderStatus.IN_PROGRESS, 3, 0, 0)
    assert seen.output_file_id is None


async def test_an_ended_batch_has_results_in_any_order(claude: Claude) -> None:
    batch = await claude.create(elements_of(3) + b"," + elements_of(1, "zyxwvutsrq", max_tokens=-1))

    ended = await claude.until(batch.id, "completed")

    assert (ended.total, ended.completed, ended.failed) == (4, 3, 1)
    assert (ended.output_file_id, ended.error_file_id) == (batch.id, None)
    lines = [json.loads(line) for line in (await claude.download(batch.id)).splitlines()]
    assert sorted(line["custom_id"] for line in lines) == [
        *(f"abcdefghij-{number}" for number in (1, 2, 3)),
        "zyxwvutsrq-1",
    ]


@pytest.mark.edge(9, 10)
@pytest.mark.parametrize("completed", [1, 3])
async def test_ended_after_a_cancel_is_cancelled_whatever_was_finished(
    by_hand: OwnSimulator, claude: Claude, completed: int
) -> None:
    batch = await claude.create(elements_of(3))
    await by_hand.advance(batch.id, "in_progress", completed=completed)

    asked = await claude.client.cancel(batch.id)
    again = await claude.client.cancel(batch.id)
    await by_hand.advance(batch.id, "ended")
    ended = await claude.client.get(batch.id)

    assert (asked.status, again.status) == (ProviderStatus.CANCELLING, ProviderStatus.CANCELLING)
    assert (ended.status, ended.completed, ended.failed) == (
        ProviderStatus.CANCELLED,
        completed,
        3 - completed,
    )
    assert await claude.client.cancel(batch.id) == ended


@pytest.mark.edge(12)
async def test_ended_with_anything_out_of_time_is_expired(by_hand: OwnSimulator, claude: Claude) -> None:
    batch = await claude.create(elements_of(3))
    await by_hand.advance(batch.id, "expired", completed=2)

    ended = await claude.client.get(batch.id)

    assert (ended.status, ended.total, ended.completed, ended.failed) == (ProviderStatus.EXPIRED, 3, 2, 1)
    assert ended.output_file_id == batch.id


@pytest.mark.parametrize("action", SILENT, ids=str)
@pytest.mark.parametrize("op", [GET, LIST, CANCEL, RESULTS])
async def test_a_look_that_did_not_come_through_says_nothing(
    shared: OwnSimulator, claude: Claude, op: str, action: dict[str, Any]
) -> None:
    batch = await claude.create(elements_of(1))
    await claude.until(batch.id, "completed")
    if op == RESULTS and action["kind"] == "garbage":
        return  # results are bytes to a client
    await shared.fault(op, action, key=claude.key)

    with pytest.raises(Unavailable):
        await {
            GET: lambda: claude.client.get(batch.id),
            LIST: lambda: claude.find(1),
            CANCEL: lambda: claude.client.cancel(batch.id),
            RESULTS: lambda: claude.download(batch.id),
        }[op]()


async def test_what_the_provider_does_not_know_is_not_found(claude: Claude) -> None:
    for call in (claude.client.get, claude.client.cancel, claude.download):
        with pytest.raises(NotFound):
            await call("msgbatch_none")
    await claude.client.delete_input("msgbatch_none")


@pytest.mark.edge(20)
async def test_results_elsewhere_are_not_asked_for(shared: OwnSimulator, claude: Claude) -> None:
    async with listener(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as elsewhere:
        batch = await claude.create(elements_of(1))
        await claude.until(batch.id, "completed")
        patch = {"kind": "patch", "body": {"results_url": f"{elsewhere.url}/results"}}
        await shared.fault(GET, patch, key=claude.key)

        seen = await claude.client.get(batch.id)
        assert seen.output_file_id is not None
        content = await claude.download(seen.output_file_id)

        assert b"abcdefghij-1" in content
        assert elsewhere.connections == 0


@pytest.mark.edge(20)
async def test_a_redirect_is_not_followed(shared: OwnSimulator, claude: Claude) -> None:
    async with listener(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as inside:
        action = {"kind": "status", "status": 302, "headers": {"Location": f"{inside.url}/batches/1"}}
        for op in (GET, LIST, CANCEL, RESULTS):
            await shared.fault(op, action, key=claude.key)
        for call in (
            claude.client.get("msgbatch_1"),
            claude.find(1),
            claude.client.cancel("msgbatch_1"),
            claude.download("msgbatch_1"),
        ):
            with pytest.raises(Unavailable, match="redirect"):
                await call

        assert inside.connections == 0


@pytest.mark.edge(16)
@pytest.mark.parametrize("size", [0, 40])
async def test_results_that_break_off_are_no_results(shared: OwnSimulator, claude: Claude, size: int) -> None:
    batch = await claude.create(elements_of(2))
    await claude.until(batch.id, "completed")
    await shared.fault(RESULTS, {"kind": "truncate", "bytes": size}, key=claude.key)

    with pytest.raises(Unavailable, match="broke off"):
        await claude.download(batch.id)
    assert len((await claude.download(batch.id)).splitlines()) == 2


@pytest.mark.edge(18)
async def test_archived_results_are_gone(shared: OwnSimulator, claude: Claude) -> None:
    batch = await claude.create(elements_of(1))
    ended = await claude.until(batch.id, "completed")
    await shared.advance_clock(30 * 86_400)
    try:
        archived = await claude.client.get(batch.id)
        with pytest.raises(NotFound):
            await claude.download(batch.id)
    finally:
        await shared.advance_clock(-30 * 86_400)

    assert archived == ended


async def test_only_batches_of_the_right_size_and_time_are_possible(
    by_hand: OwnSimulator, claude: Claude
) -> None:
    first, _, third = [await claude.create(elements_of(lines)) for lines in (2, 3, 2)]

    found = await claude.find(2)
    without = await claude.find(2, taken=[first.id])

    assert {batch.id for batch in found.possible} == {first.id, third.id}
    assert [batch.id for batch in without.possible] == [third.id]
    assert (found.ours, (await claude.find(4)).possible) == ([], [])
    claude.since = third.created_at
    assert [batch.id for batch in (await claude.find(2)).possible] == [third.id]
    claude.since = first.created_at.replace(year=2020)
    assert (await claude.find(2)).possible == []


async def test_an_ended_batch_says_whose_it_is(claude: Claude) -> None:
    ours, theirs = await claude.create(elements_of(2)), await claude.create(elements_of(2, "somebodyel"))
    for batch in (ours, theirs):
        await claude.until(batch.id, "completed")

    found = await claude.find(2)

    assert ([batch.id for batch in found.ours], found.possible) == ([ours.id], [])


async def test_an_ended_batch_whose_results_are_gone_stays_possible(
    shared: OwnSimulator, claude: Claude
) -> None:
    batch = await claude.create(elements_of(2))
    await claude.until(batch.id, "completed")
    await shared.fault(RESULTS, {"kind": "status", "status": 404}, key=claude.key)

    found = await claude.find(2)

    assert [batch.id for batch in found.possible] == [batch.id]


async def test_every_page_is_read(
    by_hand: OwnSimulator, claude: Claude, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("floopy_common.providers.anthropic.client.PAGE_SIZE", 2)
    made = [await claude.create(elements_of(1)) for _ in range(5)]

    found = await claude.find(1)

    assert {batch.id for batch in found.possible} == {batch.id for batch in made}


async def test_a_listing_without_an_end_is_no_listing(
    by_hand: OwnSimulator, claude: Claude, monkeypatch: pytest.MonkeyPatch
) -> None:
    await claude.create(elements_of(1))
    await by_hand.fault(LIST, {"kind": "patch", "body": {"has_more": True}}, times=2, key=claude.key)
    monkeypatch.setattr("floopy_common.providers.anthropic.client.MAX_PAGES", 1)

    with pytest.raises(Unavailable, match="more than 1 pages"):
        await claude.find(1)


async def test_members_may_be_missing(shared: OwnSimulator, claude: Claude) -> None:
    batch = await claude.create(elements_of(1))
    patch = {"request_counts": {}, "created_at": "2026-01-02T03:04:05", "unknown": [1]}
    await shared.fault(GET, {"kind": "patch", "body": patch}, key=claude.key)

    seen = await claude.client.get(batch.id)

    assert (seen.id, seen.total, seen.created_at.isoformat()) == (batch.id, 0, "2026-01-02T03:04:05+00:00")
