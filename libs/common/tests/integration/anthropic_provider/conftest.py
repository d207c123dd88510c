"""Accounts at the simulator's Anthropic half, one simulator per module: tests keep apart by their keys."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from floopy_providers.claude import Claude
from pydantic import SecretStr

from floopy.simulation import OwnSimulator
from floopy_common.providers.anthropic.client import AnthropicBatches
from floopy_common.providers.api import Access
from floopy_common.providers.http import Connections, open_connections


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
def make_claude(connections: Connections) -> Callable[..., Claude]:
    """Any address, any key, and the client's timeouts."""

    def make(base_url: str, key: str | None = None, **timeouts: float) -> Claude:
        key = key or f"sk-ant-{uuid.uuid4().hex}"
        client = AnthropicBatches(
            Access(base_url, SecretStr(key)),
            connections,
            version="2023-06-01",
            **{"create_timeout": 10.0, **timeouts},
        )
        return Claude(client, key)

    return make


@pytest.fixture
def claude(shared: OwnSimulator, make_claude: Callable[..., Claude]) -> Claude:
    return make_claude(shared.anthropic_base_url)
