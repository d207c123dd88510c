"""A database whose commands are counted."""

from collections.abc import AsyncIterator, Iterator

import pytest
from merged_calls import Commands
from pymongo import monitoring

from floopy_common.chassis.mongo import Collection, Mongo, open_mongo
from floopy_common.settings import MongoSettings


@pytest.fixture
def commands() -> Iterator[Commands]:
    listener = Commands()
    monitoring.register(listener)
    yield listener
    monitoring._LISTENERS.command_listeners.remove(listener)


@pytest.fixture
async def mongo(mongo_uri: str, mongo_database: str, commands: Commands) -> AsyncIterator[Mongo]:
    async with open_mongo(MongoSettings(uri=mongo_uri, database=mongo_database), "test") as opened:
        commands.names.clear()
        yield opened


@pytest.fixture
def segments(mongo: Mongo) -> Collection:
    return mongo.collection("segments")
