"""The service as a process of its own: events reach the broker, stopping and dying lose nothing."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import openai
import pytest
from aiokafka import AIOKafkaConsumer
from openai import AsyncOpenAI
from waiting import eventually, is_ready

from floopy.backends.ports import LOOPBACK, free_port
from floopy.backends.topics import TopicSpec, create_topics

LINE = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{}}\n'
REQUEST = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}


class Process:
    """A running floopy-api, its answers, and its end."""

    def __init__(self, child: asyncio.subprocess.Process, url: str) -> None:
        self.child = child
        self.url = url

    async def ready(self) -> None:
        async def answers() -> bool:
            assert self.child.returncode is None, "the process ended"
            return await is_ready(self.url)

        await eventually(answers, what="a ready process")

    async def stopped(self) -> int:
        return await asyncio.wait_for(self.child.wait(), 30)


@pytest.fixture
def settings(mongo_uri: str, mongo_database: str) -> dict[str, str]:
    """Settings of the process, with no broker to be found."""
    return {
        "FLOOPY_MONGO__URI": mongo_uri,
        "FLOOPY_MONGO__DATABASE": mongo_database,
        "FLOOPY_SECRET_KEY": "a secret for tests that is long enough",
        "FLOOPY_KAFKA__BOOTSTRAP_SERVERS": f"{LOOPBACK}:1",
        "FLOOPY_KAFKA__SEND_TIMEOUT": "1",
        "FLOOPY_SCAN__INTERVAL": "0.2",
        "FLOOPY_API__PORT": str(free_port()),
    }


@asynccontextmanager
async def running(settings: dict[str, str]) -> AsyncIterator[Process]:
    program = Path(sys.executable).parent / "floopy-api"
    child = await asyncio.create_subprocess_exec(
        program, env={**os.environ, **settings}, stdout=asyncio.subprocess.DEVNULL
    )
    process = Process(child, f"http://{LOOPBACK}:{settings['FLOOPY_API__PORT']}")
    try:
        await process.ready()
        yield process
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


def sdk(process: Process, alice: Any, retries: int = 0) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{process.url}/v1", api_key=alice.api_key, max_retries=retries)


async def test_the_event_of_a_create_reaches_the_broker(
    service: Any, alice: Any, settings: dict[str, str], embedded_bootstrap: str
) -> None:
    prefix = f"{alice.org_id}."
    topic = f"{prefix}batch.created"
    await create_topics(embedded_bootstrap, [TopicSpec(topic, partitions=4)])
    broker = {
        "FLOOPY_KAFKA__BOOTSTRAP_SERVERS": embedded_bootstrap,
        "FLOOPY_KAFKA__IDEMPOTENT": "false",
        "FLOOPY_KAFKA__TOPIC_PREFIX": prefix,
        "FLOOPY_KAFKA__SEND_TIMEOUT": "10",
    }
    async with running({**settings, **broker}) as process, sdk(process, alice) as client:
        batch = await client.batches.create(input_file_id="file-x", **REQUEST)

        consumer = AIOKafkaConsumer(topic, bootstrap_servers=embedded_bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            record = await asyncio.wait_for(consumer.getone(), 20)
        finally:
            await consumer.stop()

        async def outbox_is_empty() -> bool:
            return (await service.batch(batch.id))["outbox"] == []

        await eventually(outbox_is_empty, timeout=10, what="an empty outbox")
    assert record.key == batch.id.encode()
    event = msgspec.json.decode(record.value)
    assert (event["type"], event["data"]["batch_id"]) == ("batch.created", batch.id)


async def test_a_create_does_not_wait_for_a_broker_that_is_away(
    service: Any, alice: Any, settings: dict[str, str]
) -> None:
    async with running(settings) as process, sdk(process, alice) as client:
        async with asyncio.timeout(5):
            batch = await client.batches.create(input_file_id="file-x", **REQUEST)
            await client.batches.cancel(batch.id)

        waiting = [event["topic"] for event in (await service.batch(batch.id))["outbox"]]
    assert waiting == ["batch.created", "batch.cancel.requested"]


async def test_the_metrics_port_has_the_probes_too(alice: Any, settings: dict[str, str]) -> None:
    port = free_port()
    async with running({**settings, "FLOOPY_METRICS_PORT": str(port)}), aiohttp.ClientSession() as http:
        for path in ("/healthz", "/readyz", "/metrics"):
            async with http.get(f"http://{LOOPBACK}:{port}{path}") as answer:
                assert answer.status == 200
                text = await answer.text()
    assert "floopy_api_requests_total" in text
    assert alice.org_id not in text


async def test_an_upload_under_way_is_finished_when_the_process_is_told_to_stop(
    service: Any, alice: Any, settings: dict[str, str]
) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        + LINE
        + b"x" * 3_000_000
        + b"\r\n--b--\r\n"
    )
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: {LOOPBACK}\r\nAuthorization: Bearer {alice.api_key}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(body)}\r\n\r\n"
    )

    async def has_begun() -> bool:
        return bool(await service.count("blob_chunks"))

    async with running(settings) as process:
        reader, writer = await asyncio.open_connection(LOOPBACK, int(settings["FLOOPY_API__PORT"]))
        with closing(writer):
            writer.write(head.encode() + body[:2_900_000])
            await eventually(has_begun, timeout=10, what="an upload under way")
            process.child.send_signal(signal.SIGTERM)
            await eventually(lambda: _refuses_connections(settings), timeout=10, what="a shut door")
            writer.write(body[2_900_000:])

            assert (await asyncio.wait_for(reader.readline(), 20)).startswith(b"HTTP/1.1 200 ")
        assert await process.stopped() == 0
    assert await service.count("files") == 1


async def _refuses_connections(settings: dict[str, str]) -> bool:
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, int(settings["FLOOPY_API__PORT"]))
    except (ConnectionRefusedError, ConnectionResetError):  # reset: it knocked while the door was being shut
        return True
    writer.close()
    return False


@pytest.mark.parametrize("step", ["api.create.after_pin", "api.create.after_insert"])
async def test_a_create_cut_off_by_a_kill_is_made_once_by_the_sdks_own_repeat(
    service: Any, alice: Any, settings: dict[str, str], step: str
) -> None:
    async with running({**settings, "FLOOPY_FAIL_AT": step}) as process, sdk(process, alice) as client:
        file = await client.files.create(file=("in.jsonl", LINE), purpose="batch")
        with pytest.raises(openai.APIConnectionError):
            await client.batches.create(input_file_id=file.id, **REQUEST)
        assert await process.stopped() == -signal.SIGKILL

    async with running(settings) as process, sdk(process, alice) as client:
        repeat = {"x-stainless-retry-count": "1"}
        batch = await client.batches.create(input_file_id=file.id, extra_headers=repeat, **REQUEST)

    stored = await service.mongo.collection("batches").find_all({})
    assert [row["_id"] for row in stored] == [batch.id]
    assert stored[0]["input"]["bytes"] == len(LINE)


async def test_logs_are_json_and_hold_no_secret(alice: Any, settings: dict[str, str], tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "floopy-api"
    path = tmp_path / "log"
    with path.open("wb") as log:
        child = await asyncio.create_subprocess_exec(
            program, env={**os.environ, **settings}, stdout=log, stderr=log
        )
    try:
        process = Process(child, f"http://{LOOPBACK}:{settings['FLOOPY_API__PORT']}")
        await process.ready()
        async with sdk(process, alice) as client:
            with pytest.raises(openai.NotFoundError):
                await client.batches.retrieve("batch_\x1b[31m\r\nforged")
        child.terminate()
        await process.stopped()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {"started", "listening", "request", "stopped"} <= {line.get("event") for line in lines}
    assert alice.api_key not in path.read_text()
    assert settings["FLOOPY_SECRET_KEY"] not in path.read_text()
