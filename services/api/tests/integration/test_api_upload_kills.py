"""Uploads across a kill: nothing doubled, nothing kept for ever; the SDK against a real process."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from waiting import eventually, is_ready

from floopy.backends.ports import LOOPBACK, free_port
from floopy_api.handlers.keys import UPLOADS
from floopy_common.stores.sweeping import BlobSweeper

LINE = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{}}\n'


@asynccontextmanager
async def process(mongo_uri: str, database: str, **settings: str) -> AsyncIterator[tuple[Any, str]]:
    """floopy-api as its own process with no broker to be found, ready; its end is waited for."""
    port = free_port()
    environment = {
        "FLOOPY_MONGO__URI": mongo_uri,
        "FLOOPY_MONGO__DATABASE": database,
        "FLOOPY_SECRET_KEY": "a secret for tests that is long enough",
        "FLOOPY_KAFKA__BOOTSTRAP_SERVERS": f"{LOOPBACK}:1",
        "FLOOPY_SCAN__INTERVAL": "0.1",
        "FLOOPY_API__PORT": str(port),
        **settings,
    }
    child = await asyncio.create_subprocess_exec(
        Path(sys.executable).parent / "floopy-api",
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        url = f"http://{LOOPBACK}:{port}"
        await _ready(child, url)
        yield child, f"{url}/v1"
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def _ready(child: asyncio.subprocess.Process, url: str) -> None:
    async def answers() -> bool:
        assert child.returncode is None, "the process ended"
        return await is_ready(url)

    await eventually(answers, what="a ready process")


def sdk(url: str, alice: Any) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=url, api_key=alice.api_key, max_retries=0)


async def begun(client: AsyncOpenAI, parts: int = 0) -> tuple[str, list[str]]:
    upload = await client.uploads.create(
        bytes=2 * len(LINE), filename="in.jsonl", purpose="batch", mime_type="text/jsonl"
    )
    return upload.id, [(await client.uploads.parts.create(upload.id, data=LINE)).id for _ in range(parts)]


@pytest.mark.surface("2: upload_file_chunked; 9.2")
async def test_the_sdks_helper_works_against_the_process(
    service: Any, alice: Any, mongo_uri: str, mongo_database: str, tmp_path: Path
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(LINE * 20_000)
    async with process(mongo_uri, mongo_database) as (_, url), sdk(url, alice) as client:
        upload = await client.uploads.upload_file_chunked(
            file=path, mime_type="text/jsonl", purpose="batch", part_size=600_001
        )
        content = await client.files.content(upload.file.id)

    assert content.content == path.read_bytes()
    assert await service.count("blobs") == 3


@pytest.mark.surface("2: upload_file_chunked of 130 MiB, its own parts of 64 MiB; 9.2")
async def test_the_sdks_helper_sends_130_mib_in_three_parts(
    service: Any, alice: Any, mongo_uri: str, mongo_database: str, tmp_path: Path
) -> None:
    path, mebibyte = tmp_path / "in.jsonl", 1024 * 1024
    with path.open("wb") as file:
        for number in range(130):
            file.write(b'{"custom_id": "%d", "x": "' % number)
            file.write(b"x" * ((number + 1) * mebibyte - file.tell() - 3) + b'"}\n')
    async with process(mongo_uri, mongo_database) as (_, url), sdk(url, alice) as client:
        upload = await client.uploads.upload_file_chunked(file=path, mime_type="text/jsonl", purpose="batch")
        batch = await client.batches.create(
            input_file_id=upload.file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        around = {"Range": f"bytes={64 * mebibyte - 3}-{64 * mebibyte + 18}"}
        cut = await client.files.content(upload.file.id, extra_headers=around)

    assert cut.content == b'"}\n{"custom_id": "64",'
    kept = (await service.batch(batch.id))["input"]
    assert [part["length"] for part in kept["ranges"]] == [64 * mebibyte, 64 * mebibyte, 2 * mebibyte]
    assert kept["bytes"] == upload.file.bytes == path.stat().st_size == 130 * mebibyte


async def test_a_part_cut_off_by_a_kill_is_sent_again_and_the_first_is_swept(
    service: Any, alice: Any, client: AsyncOpenAI, mongo_uri: str, mongo_database: str
) -> None:
    upload, _ = await begun(client)
    killed = process(mongo_uri, mongo_database, FLOOPY_FAIL_AT="api.part.after_blob")
    async with killed as (child, url), sdk(url, alice) as dying:
        with pytest.raises(openai.APIConnectionError):
            await dying.uploads.parts.create(upload, data=LINE)
        assert await child.wait() == -signal.SIGKILL
    assert await service.count("blobs") == 1

    ids = [(await client.uploads.parts.create(upload, data=LINE)).id for _ in range(2)]
    done = await client.uploads.complete(upload, part_ids=ids)

    assert (await client.files.content(done.file.id)).content == 2 * LINE
    assert await BlobSweeper(service.mongo).condemn_unreferenced(0) == 1


@pytest.mark.parametrize("step", ["api.upload.after_complete", "api.upload.after_file"])
async def test_a_complete_cut_off_by_a_kill_makes_one_file_whoever_comes_next(
    service: Any, alice: Any, client: AsyncOpenAI, mongo_uri: str, mongo_database: str, step: str
) -> None:
    upload, ids = await begun(client, parts=2)
    killed = process(mongo_uri, mongo_database, FLOOPY_FAIL_AT=step)
    async with killed as (child, url), sdk(url, alice) as dying:
        with pytest.raises(openai.APIConnectionError):
            await dying.uploads.complete(upload, part_ids=ids)
        assert await child.wait() == -signal.SIGKILL
    assert await BlobSweeper(service.mongo).condemn_unreferenced(0) == 0

    if step == "api.upload.after_complete":
        await service.app[UPLOADS].tidy()
    done = await client.uploads.complete(upload, part_ids=ids)

    assert [file.id async for file in client.files.list()] == [done.file.id]
    assert (await client.files.content(done.file.id)).content == 2 * LINE
    row = await service.mongo.collection("uploads").find_one({"_id": upload})
    assert (row["settled"], row["parts"]) == (True, [])


async def test_the_process_expires_uploads_nobody_asks_for(
    service: Any, client: AsyncOpenAI, mongo_uri: str, mongo_database: str
) -> None:
    upload, _ = await begun(client, parts=1)
    uploads = service.mongo.collection("uploads")
    row = await uploads.find_one({"_id": upload})
    past = row["created_at"] - timedelta(seconds=1)
    await uploads.update_one({"_id": upload}, {"$set": {"expires_at": past}})

    async def is_expired() -> bool:
        return bool(await uploads.count({"_id": upload, "status": "expired", "parts": []}))

    async with process(mongo_uri, mongo_database):
        await eventually(is_expired, timeout=10, what="an expired upload")
