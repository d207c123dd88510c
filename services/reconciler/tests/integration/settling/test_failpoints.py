"""kill -9 at every named step of the real process: the next one ends the batch with the same bytes."""

import asyncio
import json
import os
import signal
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer
from waiting import eventually

from floopy.backends.topics import TopicSpec, create_topics
from floopy.simulation import OwnSimulator
from floopy_common.chassis.mongo import Mongo, ensure_indexes, open_mongo
from floopy_common.domain.batch import BatchStatus
from floopy_common.domain.ids import line_id, new_batch_id, new_plan_id, receipt_id, rollup_id
from floopy_common.domain.segment import Sink
from floopy_common.settings import MongoSettings
from floopy_common.stores.batches import BatchStore
from floopy_common.topics import creation_list, full_name
from floopy_reconciler.main import FAILPOINTS

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

SECRET = "a secret for tests that nobody needs to guess"
Outcome = tuple[dict[str, bytes], dict[str, Any]]
"""Content of the batch's files by kind, and the batch."""

ROWS = ("requests", "usage_ledger", "scores")
PROGRAM = Path(sys.executable).parent / "floopy-reconciler"
SEGMENT_LINES, SHARD_LINES, LINES = 4, 6, 12
RETRIED, REFUSED = (2, 8), 5
"""Line numbers: one of each shard fails in passing the first time it is run, one of all always."""

SHORT = {
    "FLOOPY_SCAN__INTERVAL": "0.1",
    "FLOOPY_LEASE__TTL": "1",
    "FLOOPY_POLL__MIN": "0.05",
    "FLOOPY_POLL__MAX": "0.2",
    "FLOOPY_POLL__SCAN": "0.05",
    "FLOOPY_AUDIT__INTERVAL": "0.1",
    "FLOOPY_AUDIT__BACKOFF_MIN": "30",
    # a clean-up that was killed is tried again after a tenth of this
    "FLOOPY_RETENTION__CONTENT": "120",
}


@dataclass
class Process:
    """The reconciler as it is deployed, one at a time."""

    environment: dict[str, str]
    log: Path

    @asynccontextmanager
    async def running(self, fail_at: str | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
        environment = {**os.environ, **self.environment}
        if fail_at is not None:
            environment["FLOOPY_FAIL_AT"] = fail_at
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(PROGRAM, env=environment, stdout=log, stderr=log)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def killed_at(self, name: str, drive: Callable[[], Awaitable[Any]]) -> None:
        """Run until the process has killed itself at `name`."""
        async with self.running(name) as process:
            ended = asyncio.create_task(process.wait())
            while not ended.done():
                await drive()
                await asyncio.wait({ended}, timeout=0.05)
        assert ended.result() == -signal.SIGKILL, self.log.read_text()[-3000:]

    async def until(self, drive: Callable[[], Awaitable[bool]]) -> None:
        """Run until `drive` says so."""
        async with self.running() as process:

            async def driven() -> bool:
                done = await drive()
                assert done or process.returncode is None, "the process has ended"
                return done

            try:
                await eventually(driven, timeout=60, what="the end of the batch")
            except AssertionError as failure:
                failure.add_note(self.log.read_text()[-3000:])
                raise

    async def stops_when_told(self) -> None:
        """Start, become ready, stop."""

        async def assigned() -> bool:
            return "assigned to partitions" in self.log.read_text()

        async with self.running() as process:
            await eventually(assigned, timeout=30, what="partitions assigned")
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 20) == 0


class Story:
    """One batch from submitted to balanced, told in a database of its own; everything upstream is shared."""

    def __init__(self, world: Any, planted: Any, *, cancelled: bool) -> None:
        self.world = world
        self.mongo: Mongo = world.mongo
        self.planted = planted
        self._cancelled = cancelled

    async def go_on(self) -> bool:
        """Play user, submitter and sinks for a moment; True once the batch has ended and balances."""
        shards = await self.world.shards(self.planted)
        if self._cancelled:
            await self._cancel_after_the_first(shards)
        else:
            for shard in shards:
                if shard["state"] == "planned":
                    await self.world.submit(self.planted, shard)
        await self._confirm()
        batch = await self.world.batch(self.planted)
        done: bool = batch["audit"]["balanced"] and not batch["outbox"]
        return done and batch.get("cleanup", {}).get("stage") == "content"

    async def _cancel_after_the_first(self, shards: list[dict[str, Any]]) -> None:
        batch = await self.world.batch(self.planted)
        if shards[0]["state"] == "settled" and batch["status"] == "in_progress":
            await BatchStore(self.mongo).transition(
                batch,
                BatchStatus.CANCELLING,
                now=batch["created_at"],
                by="floopy-api",
                fields={
                    "ending": "cancelled",
                    "ending_at": batch["created_at"],
                    "next_look_at": datetime.now(UTC),
                },
            )

    async def _confirm(self) -> None:
        """What the sinks write of every emitted segment."""
        emitted = {"batch_id": self.planted.id, "state": "emitted"}
        for segment in await self.mongo.collection("segments").find_all(emitted):
            numbers = range(segment["first_line"], segment["last_line"] + 1)
            rows = [{"_id": line_id(self.planted.id, number)} for number in numbers]
            for name in ROWS:
                await self.mongo.collection(name).insert_missing([dict(row) for row in rows])
            rollup = rollup_id(self.planted.id, segment["no"])
            await self.mongo.collection("usage_rollups").insert_new(
                {"_id": rollup, "batch_id": self.planted.id, "segment": segment["no"], "lines": len(rows)}
            )
            for sink in Sink:
                await self.mongo.collection("receipts").insert_new(
                    {
                        "_id": receipt_id(self.planted.id, segment["no"], sink.value),
                        "batch_id": self.planted.id,
                        "sink": sink.value,
                        "segment": segment["no"],
                        "lines": len(rows),
                        "parked": 0,
                    }
                )

    async def files(self) -> dict[str, bytes]:
        """Content of output and error file, through the file's ranges."""
        found = await self.mongo.collection("files").find_all({"batch_id": self.planted.id})
        return {
            file["kind"]: b"".join(
                [await self.world.blobs.read_bytes(part["blob"]) for part in file["ranges"]]
            )
            for file in found
        }


@dataclass
class Stage:
    """What all stories share: a provider, a broker and, of those that are not cancelled, all upstream."""

    simulator: OwnSimulator
    mongo_uri: str
    bootstrap: str
    directory: Path
    world_of: Callable[..., Any]
    body: Callable[..., Any]
    upstream: Callable[..., Any]
    shared: Any
    ids: tuple[str, str]

    @asynccontextmanager
    async def story(self, upstream: Any, *, cancelled: bool) -> AsyncIterator[tuple[Story, Process, str]]:
        database, prefix = f"test_{uuid.uuid4().hex}", f"{uuid.uuid4().hex[:8]}."
        await create_topics(self.bootstrap, [TopicSpec(*row) for row in creation_list(prefix, 4, 1_000_000)])
        environment = {
            **SHORT,
            "FLOOPY_MONGO__URI": self.mongo_uri,
            "FLOOPY_MONGO__DATABASE": database,
            "FLOOPY_KAFKA__BOOTSTRAP_SERVERS": self.bootstrap,
            "FLOOPY_KAFKA__TOPIC_PREFIX": prefix,
            "FLOOPY_KAFKA__IDEMPOTENT": "false",
            "FLOOPY_SECRET_KEY": SECRET,
            "FLOOPY_PROVIDERS__OPENAI__BASE_URL": self.simulator.openai_base_url,
            "FLOOPY_WORK_DIR": str(self.directory / database),
        }
        async with open_mongo(MongoSettings(uri=self.mongo_uri, database=database), "test") as mongo:
            await ensure_indexes(mongo)
            world = self.world_of(mongo, self.simulator, upstream)
            await world.open()
            try:
                planted = await self._plant(world, cancelled=cancelled)
                process = Process(environment, self.directory / f"{database}.log")
                yield Story(world, planted, cancelled=cancelled), process, prefix
            finally:
                await world.close()
                await mongo._client.drop_database(database)

    async def _plant(self, world: Any, *, cancelled: bool) -> Any:
        # a request that fails once fails once for all who send the same bytes
        tag = f"cancelled {world.upstream.key}" if cancelled else "plain"
        # in the cancelled story the provider stops amid the second shard, wherever it is by then
        retried = RETRIED[:1] if cancelled else RETRIED
        fates = {REFUSED: "status=400", **dict.fromkeys(retried, "status=500 times=1")}
        bodies = [self.body(f"{tag} {n}", sim=fates.get(n)) for n in range(1, LINES + 1)]
        first_time = not world.upstream.attempts
        await self.simulator.configure(auto=not cancelled)
        planted = await world.plan(bodies, segment_lines=SEGMENT_LINES, shard_lines=SHARD_LINES, ids=self.ids)
        upstream = [await world.submit(planted, shard) for shard in planted.shards]
        if cancelled:
            # told once more, the second provider batch has ended already: nobody may look before the user
            # has cancelled, which makes a look due
            await world.mongo.collection("shards").update_one(
                {"_id": planted.shards[1]["_id"]},
                {"$set": {"poll.next_at": datetime.now(UTC) + timedelta(hours=1)}},
            )
        if cancelled and first_time:
            await self.simulator.advance(upstream[0], "completed")
            await self.simulator.advance(upstream[1], "in_progress", completed=3)
        return planted


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(
    mongo_uri: str,
    embedded_bootstrap: str,
    tmp_path_factory: pytest.TempPathFactory,
    make_world: tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]],
) -> AsyncIterator[Stage]:
    world_of, upstream, body = make_world
    simulator = OwnSimulator(tmp_path_factory.mktemp("simulator"))
    await simulator.configure(batch_seconds=0.1, cancel_seconds=0.05)
    yield Stage(
        simulator,
        mongo_uri,
        embedded_bootstrap,
        tmp_path_factory.mktemp("reconciler"),
        world_of,
        body,
        upstream,
        upstream(),
        (new_batch_id(), new_plan_id()),
    )
    assert simulator.stop() == 0


async def tell(stage: Stage, upstream: Any, *, cancelled: bool) -> Outcome:
    """How the story ends when nobody is killed."""
    async with stage.story(upstream, cancelled=cancelled) as (story, process, _):
        await process.until(story.go_on)
        return await story.files(), await story.world.batch(story.planted)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def undisturbed(stage: Stage) -> Outcome:
    return await tell(stage, stage.shared, cancelled=False)


async def records(bootstrap: str, topic: str) -> list[dict[str, Any]]:
    """Everything in a topic."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        ends = await consumer.end_offsets(consumer.assignment())
        found: list[dict[str, Any]] = []
        async with asyncio.timeout(20):
            while len(found) < sum(ends.values()):
                fetched = await consumer.getmany(timeout_ms=200)
                found += [json.loads(record.value) for batch in fetched.values() for record in batch]
        return found
    finally:
        await consumer.stop()


async def test_undisturbed_batch_is_what_it_should_be(undisturbed: Outcome) -> None:
    files, batch = undisturbed

    assert batch["status"] == "completed"
    assert batch["counts"] == {"total": LINES, "completed": LINES - 1, "failed": 1}
    assert files["output"].count(b"\n") == LINES - 1


async def test_process_stops_when_it_is_told_to(stage: Stage) -> None:
    async with stage.story(stage.shared, cancelled=False) as (_, process, _):
        await process.stops_when_told()


async def test_undisturbed_cancelled_batch_keeps_what_was_finished(stage: Stage) -> None:
    files, batch = await tell(stage, stage.upstream(), cancelled=True)

    assert batch["status"] == "cancelled"
    assert batch["counts"] == {"total": LINES, "completed": 4 + 3, "failed": 5}
    codes = Counter((json.loads(line)["error"] or {}).get("code") for line in files["error"].splitlines())
    assert codes == {None: 2, "batch_cancelled": 3}


@pytest.mark.parametrize("name", sorted(FAILPOINTS))
async def test_killed_there_the_batch_ends_as_if_nothing_had_happened(
    stage: Stage, undisturbed: Outcome, name: str
) -> None:
    cancelled = name.startswith("cancel.")
    upstream = stage.upstream() if cancelled else stage.shared
    async with stage.story(upstream, cancelled=cancelled) as (story, process, prefix):
        await process.killed_at(name, story.go_on)
        await process.until(story.go_on)

        # only afterwards: there is nothing left to cancel for whoever comes second
        expected = await tell(stage, upstream, cancelled=True) if cancelled else undisturbed
        await assert_as(expected, story)
        await assert_told(story, stage.bootstrap, prefix)


async def test_two_at_once_end_the_batch_as_one_does(stage: Stage, undisturbed: Outcome) -> None:
    async with stage.story(stage.shared, cancelled=False) as (story, process, prefix):
        async with process.running():
            await process.until(story.go_on)

        await assert_as(undisturbed, story)
        await assert_told(story, stage.bootstrap, prefix)


async def assert_as(expected: Outcome, story: Story) -> None:
    files, batch = expected
    after = await story.world.batch(story.planted)
    assert await story.files() == files
    for field in ("status", "counts", "usage", "output_file_id", "error_file_id"):
        assert after[field] == batch[field], field
    assert {shard["state"] for shard in await story.world.shards(story.planted)} == {"settled"}


async def assert_told(story: Story, bootstrap: str, prefix: str) -> None:
    """One event, however often, of the batch's end and of every line."""
    after = await story.world.batch(story.planted)
    ended = await records(bootstrap, full_name(prefix, f"batch.{after['status']}"))
    assert {event["data"]["batch_id"] for event in ended} == {story.planted.id}
    assert len({event["id"] for event in ended}) == 1
    lines = await records(bootstrap, full_name(prefix, "batch.line.completed"))
    assert {event["data"]["line_no"] for event in lines} == set(range(1, LINES + 1))
    assert len({event["id"] for event in lines}) == LINES
