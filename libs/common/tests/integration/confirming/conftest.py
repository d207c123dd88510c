"""A confirm step, what it told and parked, and a database that refuses rows."""

from collections.abc import AsyncIterator, Sequence

import pytest
from floopy_sinks.confirming import Parking, Refuse, logging_sink
from pymongo import AsyncMongoClient

from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.stores.confirming import Confirming
from floopy_common.stores.segment_runs import SegmentRun


@pytest.fixture
def parking() -> Parking:
    return Parking()


@pytest.fixture
def rolled_up() -> list[tuple[str, int]]:
    return []


@pytest.fixture
def told() -> list[tuple[str, int]]:
    return []


@pytest.fixture
def confirming(
    mongo: Mongo, parking: Parking, rolled_up: list[tuple[str, int]], told: list[tuple[str, int]]
) -> Confirming:
    async def after_receipts(runs: Sequence[SegmentRun]) -> None:
        told.extend((run.batch_id, run.segment.no) for run in runs)

    async def before_receipts(runs: Sequence[SegmentRun]) -> None:
        rolled_up.extend((run.batch_id, run.segment.no) for run in runs)

    return logging_sink(mongo, parking, before_receipts=before_receipts, after_receipts=after_receipts)


@pytest.fixture
async def refuse(mongo_uri: str, mongo_database: str) -> AsyncIterator[Refuse]:
    """Has the collection refuse one custom_id; "" takes everything."""
    async with AsyncMongoClient[Document](mongo_uri) as client:

        async def only(custom_id: str) -> None:
            validator = {"custom_id": {"$ne": custom_id}} if custom_id else {}
            await client[mongo_database].command("collMod", "requests", validator=validator)

        yield only
