"""The models of an account, page by page."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from floopy_providers.claude import Claude
from floopy_providers.servers import odd_server

from floopy.simulation import OwnSimulator
from floopy_common.providers.anthropic import client as anthropic_client
from floopy_common.providers.anthropic.capabilities import ROWS, ModelTable
from floopy_common.providers.port import TellsModels, Unavailable

MakeClaude = Callable[..., Claude]


async def test_every_bundled_row_says_what_the_simulator_publishes(claude: Claude) -> None:
    models = await claude.client.list_models()

    assert isinstance(claude.client, TellsModels)
    told, bundled = ModelTable(None, models), ModelTable()
    for name in ROWS:
        assert name in told.listed
        assert told.resolve(name) == bundled.resolve(name)


async def test_pages_are_followed_with_the_accounts_key(
    shared: OwnSimulator, claude: Claude, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = await claude.client.list_models()
    monkeypatch.setattr(anthropic_client, "PAGE_SIZE", 7)

    assert await claude.client.list_models() == whole

    calls = [call for call in await shared.calls("models.list") if call["key"] == claude.key]
    assert [call["path"].partition("?")[2] for call in calls] == [
        "limit=1000",
        "limit=7",
        *(f"limit=7&after_id={whole[last]['id']}" for last in (6, 13)),
    ]


@pytest.mark.parametrize(
    "action",
    [
        {"kind": "status", "status": 529},
        {"kind": "drop"},
        {"kind": "garbage"},
        {"kind": "status", "status": 401},
    ],
    ids=str,
)
async def test_a_list_that_did_not_come_through_says_nothing(
    shared: OwnSimulator, claude: Claude, action: dict[str, Any]
) -> None:
    await shared.fault("models.list", action, key=claude.key)

    with pytest.raises(Unavailable):
        await claude.client.list_models()


async def test_a_list_without_an_end_is_given_up(make_claude: MakeClaude) -> None:
    asked = 0

    async def endless(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(body=json.dumps({"data": [{"id": f"claude-{asked}"}], "has_more": True}).encode())

    async with odd_server(endless) as url:
        with pytest.raises(Unavailable, match="pages"):
            await make_claude(url).client.list_models()
    assert asked == 10
