"""Raw limits: what the simplest possible program reaches against the same MongoDB."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

from pymongo import MongoClient, WriteConcern

CHUNK = 255 * 1024
_CHUNKS_PER_CALL = 8


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
