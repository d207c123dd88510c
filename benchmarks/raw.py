"""Raw limits: what the simplest possible program reaches against the same MongoDB and the same broker."""

import asyncio
import os
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from confluent_kafka import Producer
from pymongo import MongoClient, WriteConcern

from floopy.backends.topics import TopicSpec, create_topics
from floopy_common.chassis.mongo import ensure_indexes, open_mongo
from floopy_common.domain.ids import line_id
from floopy_common.settings import MongoSettings

CHUNK = 255 * 1024
EVENT_BYTES = 1_150
"""Of one line event, content by reference."""
ROWS = ("usage_ledger", "requests", "scores")
_CHUNKS_PER_CALL = 8
_ROWS_PER_CALL = 1_000
_ROWS_AT_ONCE = 10_000


def insert_rate(mongo_uri: str, size: int) -> float:
    """MB/s of `insert_many` of prebuilt chunk documents from two threads, majority and journalled."""
    with MongoClient[dict[str, object]](mongo_uri) as client:
        name = f"raw_{os.getpid()}"
        collection = client[name].get_collection("chunks", write_concern=WriteConcern(w="majority", j=True))
        payload = os.urandom(CHUNK // 2).hex().encode()
        count = size // len(payload)
        calls = [
            [{"_id": number, "data": payload} for number in range(at, min(at + _CHUNKS_PER_CALL, count))]
            for at in range(0, count, _CHUNKS_PER_CALL)
        ]
        started = time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            for inserted in pool.map(lambda call: collection.insert_many(call, ordered=False), calls):
                inserted.acknowledged  # noqa: B018 - raises what the call raised
        seconds = time.monotonic() - started
        client.drop_database(name)
        return count * len(payload) / seconds / 1e6


def find_rate(mongo_uri: str, database: str, blob_id: str, size: int) -> float:
    """MB/s of one sorted `find` over a blob's chunk documents."""
    with MongoClient[dict[str, object]](mongo_uri) as client:
        chunks = client[database].blob_chunks
        started = time.monotonic()
        found = 0
        for chunk in chunks.find({"_id": {"$gte": f"{blob_id}:", "$lt": f"{blob_id};"}}).sort("_id", 1):
            found += len(chunk["data"])  # type: ignore[arg-type]
        if found != size:
            raise RuntimeError(f"{found} of {size} bytes")
        return size / (time.monotonic() - started) / 1e6


async def rows_rate(
    mongo_uri: str, database: str, batch_id: str, lines: int, names: Sequence[str] = ROWS
) -> float:
    """Lines a second when the rows of these collections are only inserted, a thread for each collection.

    The rows are those of the batch's first lines; the collections they go to are new and have the indexes.
    """
    target = f"{database}_raw"
    async with open_mongo(MongoSettings(uri=mongo_uri, database=target), "benchmark") as mongo:
        await ensure_indexes(mongo)
    return await asyncio.to_thread(_rows_rate, mongo_uri, (database, target), batch_id, lines, names)


def _rows_rate(
    uri: str, databases: tuple[str, str], batch_id: str, lines: int, names: Sequence[str]
) -> float:
    source, target = databases
    seconds = 0.0
    with MongoClient[dict[str, Any]](uri) as client, ThreadPoolExecutor(len(names)) as pool:
        try:
            for first in range(1, lines + 1, _ROWS_AT_ONCE):
                ids = {"$gte": line_id(batch_id, first)}
                ids["$lt"] = line_id(batch_id, min(first + _ROWS_AT_ONCE, lines + 1))
                blocks = [list(client[source][name].find({"_id": ids})) for name in names]
                started = time.monotonic()
                list(pool.map(_insert_rows, [client[target]] * len(names), names, blocks))
                seconds += time.monotonic() - started
        finally:
            client.drop_database(target)
    return lines / seconds


def _insert_rows(database: Any, name: str, rows: list[dict[str, Any]]) -> None:
    collection = database.get_collection(name, write_concern=WriteConcern(w="majority", j=True))
    for at in range(0, len(rows), _ROWS_PER_CALL):
        collection.insert_many(rows[at : at + _ROWS_PER_CALL], ordered=False)


async def produce_rate(bootstrap_servers: str, count: int, size: int = EVENT_BYTES) -> float:
    """Records a second that librdkafka alone gets acknowledged by one partition."""
    topic = f"raw-{uuid.uuid4().hex[:8]}"
    await create_topics(bootstrap_servers, [TopicSpec(topic, 1)])
    return await asyncio.to_thread(_produce_rate, bootstrap_servers, topic, count, size)


def _produce_rate(bootstrap_servers: str, topic: str, count: int, size: int) -> float:
    producer = Producer({"bootstrap.servers": bootstrap_servers, "acks": "all", "linger.ms": 5})
    value = os.urandom(size // 2).hex().encode()
    started = time.monotonic()
    for _ in range(count):
        while True:
            try:
                producer.produce(topic, value, partition=0)
                break
            except BufferError:  # its queue is full
                producer.poll(0.01)
    if left := producer.flush(60):
        raise RuntimeError(f"{left} of {count} records were not acknowledged")
    return count / (time.monotonic() - started)


async def lines_rate(
    mongo_uri: str, database: str, bootstrap_servers: str, batch_id: str, lines: int, stored: int
) -> float:
    """Lines a second of inserting rows, then `stored` bytes a line, then producing an event a line."""
    rows = 1 / await rows_rate(mongo_uri, database, batch_id, lines)
    size = max(stored * lines, 4 * CHUNK)
    blobs = stored / (await asyncio.to_thread(insert_rate, mongo_uri, size) * 1e6)
    return 1 / (rows + blobs + 1 / await produce_rate(bootstrap_servers, lines))
