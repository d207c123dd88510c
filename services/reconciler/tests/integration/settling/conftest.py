"""A world with a provider, a bench that collects its results, and a scene of shards to be looked at."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from floopy.simulation import OwnSimulator
from floopy_common.chassis.mongo import Mongo
from floopy_common.providers.clients import Clients
from floopy_reconciler.core.look import Pace

from .collecting import Bench, opened_bench
from .looking import Reconciler, Scene
from .world import Upstream, World, clients_of, make_body


@pytest.fixture
async def sim(simulator: OwnSimulator) -> OwnSimulator:
    """The simulator with batches that end at once."""
    await simulator.configure(batch_seconds=0.1, cancel_seconds=0.05)
    return simulator


@pytest.fixture
async def world(mongo: Mongo, sim: OwnSimulator) -> AsyncIterator[World]:
    opened = World(mongo, sim)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def claude_world(mongo: Mongo, sim: OwnSimulator) -> AsyncIterator[World]:
    """The same with an account at Anthropic, whose lines are requests of its own."""
    opened = World(mongo, sim, provider="anthropic")
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def body() -> Callable[..., dict[str, Any]]:
    return make_body


@pytest.fixture(scope="session")
def make_world() -> tuple[type[World], type[Upstream], Callable[..., dict[str, Any]]]:
    """For tests with more than one world: how to make them, what they share, and bodies of their lines."""
    return World, Upstream, make_body


@pytest.fixture
def pace() -> Pace:
    return Pace(0.02, 0.1)


@pytest.fixture
async def bench(
    mongo: Mongo, world: World, sim: OwnSimulator, tmp_path: Path, pace: Pace
) -> AsyncIterator[Bench]:
    async with opened_bench(mongo, world, sim, tmp_path / "scratch", pace) as opened:
        yield opened


@pytest.fixture
def collect(bench: Bench) -> Callable[..., Any]:
    return bench.collect


@pytest.fixture
async def clients(mongo: Mongo, sim: OwnSimulator) -> AsyncIterator[Clients]:
    await sim.configure(auto=False)
    async with clients_of(mongo, sim) as opened:
        yield opened


@pytest.fixture
async def scene(mongo: Mongo, sim: OwnSimulator, clients: Clients, request: Any) -> Scene:
    opened = Scene(mongo, sim, clients, getattr(request, "param", "openai"))
    await opened.open()
    return opened


@pytest.fixture
async def make(mongo: Mongo, clients: Clients) -> AsyncIterator[Callable[..., Reconciler]]:
    made: list[Reconciler] = []

    def reconciler(owner: str = "one", **options: Any) -> Reconciler:
        made.append(Reconciler(mongo, clients, owner, **options))
        return made[-1]

    yield reconciler
    for each in made:
        await each.close()


@pytest.fixture
def bodies() -> list[dict[str, Any]]:
    return [make_body(f"q{number}") for number in range(6)]
