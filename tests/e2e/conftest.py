"""One running system per module: starting it takes seconds, batches do not disturb each other."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from floopy_e2e.providers import PROVIDERS, Provider
from floopy_e2e.stack import Stack, running_stack


@pytest.fixture(params=PROVIDERS, ids=str)
def provider(request: pytest.FixtureRequest) -> Provider:
    """Each provider in turn: what is promised is promised of every one."""
    chosen: Provider = request.param
    return chosen


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path_factory.mktemp("stack"), None, "--broker", "embedded") as started:
        yield started
