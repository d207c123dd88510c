"""mongod as a backend: a primary on the same data after a kill, and on another port."""

from pathlib import Path

from pymongo import AsyncMongoClient, WriteConcern

from floopy.backends.mongod import Mongod


async def write(uri: str, row: int) -> None:
    async with AsyncMongoClient(uri, serverSelectionTimeoutMS=5000) as client:
        database = client.get_database("kept", write_concern=WriteConcern("majority", j=True))
        await database.rows.insert_one({"_id": row})


async def rows(uri: str) -> int:
    async with AsyncMongoClient(uri, serverSelectionTimeoutMS=5000) as client:
        return await client.kept.rows.count_documents({})


async def test_killed_mongod_comes_back_with_its_data(tmp_path: Path) -> None:
    mongod = Mongod(tmp_path, cache_gb=0.25)
    await write(await mongod.start(), 1)

    await mongod.kill()
    uri = await mongod.start()

    await write(uri, 2)
    assert await rows(uri) == 2
    await mongod.stop()


async def test_mongod_on_another_port_is_primary_of_its_old_data(tmp_path: Path) -> None:
    async with Mongod(tmp_path, cache_gb=0.25) as uri:
        await write(uri, 1)

    async with Mongod(tmp_path, cache_gb=0.25) as moved:
        assert moved != uri
        await write(moved, 2)
        assert await rows(moved) == 2
