"""A database that takes calls and answers none: merged or not, whoever asked is told so in time."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from floopy_common.chassis.mongo import DatabaseError, Mongo, open_mongo
from floopy_common.settings import MongoSettings


class Road:
    """Between a client and the database; nothing passes once it is closed, and nothing says so."""

    def __init__(self, mongo_uri: str) -> None:
        netloc = urlsplit(mongo_uri).netloc.rpartition("@")[2].split(",")[0]
        host, _, port = netloc.partition(":")
        self._to = (host, int(port or 27017))
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        self._open.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(*self._to)
        for source, target in ((reader, there[1]), (there[0], writer)):
            task = asyncio.create_task(self._carry(source, target))
            self._tasks.add(task)

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                await self._open.wait()
                target.write(data)
        finally:
            target.close()

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
async def road(mongo_uri: str) -> AsyncIterator[tuple[Road, int]]:
    made = Road(mongo_uri)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    yield made, server.sockets[0].getsockname()[1]
    server.close()
    await made.end()


@pytest.fixture
async def behind(road: tuple[Road, int], mongo_database: str) -> AsyncIterator[Mongo]:
    uri = f"mongodb://127.0.0.1:{road[1]}/?directConnection=true"
    async with open_mongo(MongoSettings(uri=uri, database=mongo_database, timeout=0.5), "test") as opened:
        yield opened


async def test_whoever_waits_behind_calls_that_hang_is_told_in_time(
    behind: Mongo, road: tuple[Road, int]
) -> None:
    segments = behind.collection("segments")
    await segments.insert_new({"_id": "one", "no": 0})
    road[0].close()

    asked = [segments.update_one({"_id": "one"}, {"$set": {"no": number}}) for number in range(200)]
    failed = await asyncio.gather(*asked, return_exceptions=True)

    assert all(isinstance(error, DatabaseError) for error in failed)
    assert len({id(error) for error in failed}) == 200, "one of its own for each"
    behind_others = [error for error in failed if "no answer within 1 s" in str(error)]
    assert len(behind_others) > 100
