"""Accounts at the simulator, one of it per module: tests keep apart by their keys."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from floopy_providers.account import Account
from pydantic import SecretStr

from floopy.simulation import OwnSimulator
from floopy_common.providers.api import Access
from floopy_common.providers.http import Connections, open_connections
from floopy_common.providers.openai.client import OpenAiBatches


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnSimulator]:
    process = OwnSimulator(tmp_path_factory.mktemp("simulator"))
    yield process
    process.end()


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    async with open_connections() as opened:
        yield opened


@pytest.fixture
def make_account(connections: Connections) -> Callable[..., Account]:
    """Any address, any key, and the client's timeouts."""

    def make(base_url: str, key: str | None = None, **timeouts: float) -> Account:
        key = key or f"sk-{uuid.uuid4().hex}"
        client = OpenAiBatches(
            Access(base_url, SecretStr(key)), connections, **{"create_timeout": 10.0, **timeouts}
        )
        return Account(client, key)

    return make


@pytest.fixture
def account(shared: OwnSimulator, make_account: Callable[..., Account]) -> Account:
    return make_account(shared.openai_base_url)
