"""One running system, every client installed beside it and sent through it at the same time."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from floopy_clients.clients import installed_node, installed_python, locked_report, node_is_here, report_of
from floopy_e2e.stack import running_stack

Reports = dict[str, dict[str, Any]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reports(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Reports]:
    """Every client's report by name; `locked-sync` is the measure."""
    work = tmp_path_factory.mktemp("clients")
    installing = asyncio.gather(installed_python("python2"), installed_python("python1"), installed_node())
    async with running_stack(work / "stack", None, "--broker", "embedded") as stack:
        programs = [program for found in await installing for program in found]
        locked = [locked_report(way, stack, work / way) for way in ("sync", "async")]
        others = [report_of(program, stack, work / program.name) for program in programs]
        found = await asyncio.gather(*locked, *others)
    names = ["locked-sync", "locked-async", *(program.name for program in programs)]
    yield dict(zip(names, found, strict=True))


@pytest.fixture
def with_node() -> None:
    """Skips where there is no Node; fails there when the environment says that there must be one."""
    if node_is_here():
        return
    missing = "Node 20 or newer and npm are not here: the Node SDK was not tried"
    if os.environ.get("FLOOPY_REQUIRE_NODE"):
        pytest.fail(missing)
    pytest.skip(missing)
