"""Batches whose shards have settled, workers that take them from there, and sinks reduced to their rows."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from floopy.testing import Broker
from floopy_common.chassis.clock import SystemClock
from floopy_common.chassis.mongo import Mongo
from floopy_common.chassis.producer import Producer, open_producer
from floopy_common.domain.ids import (
    line_id,
    new_batch_id,
    new_plan_id,
    receipt_id,
    rollup_id,
    segment_id,
    shard_id,
)
from floopy_common.domain.index import FLAG_OK, FLAG_RETRYABLE, pack_input, pack_result
from floopy_common.domain.segment import Sink
from floopy_common.providers.openai.result import OpenAiResults
from floopy_common.settings import KafkaSettings
from floopy_common.stores.auditing import ROWS_OF, AuditStore
from floopy_common.stores.batches import BatchStore
from floopy_common.stores.blobs import BlobStore
from floopy_common.stores.segments import SegmentInputs, SegmentStore
from floopy_reconciler.adapters.archives import ScratchArchives
from floopy_reconciler.adapters.offsets import KafkaOffsets
from floopy_reconciler.core.audit import Auditor, AuditTimes
from floopy_reconciler.core.emit import Emitter, Gate
from floopy_reconciler.core.materials import Materials
from floopy_reconciler.core.pool import Pool
from floopy_reconciler.core.ready import ReadySegments
from floopy_reconciler.core.recount import Recount
from floopy_reconciler.core.rendering import Here, SegmentRenderer
from floopy_reconciler.core.retry import runs
from floopy_reconciler.core.segments import SegmentPools, SegmentWorker
from floopy_reconciler.ports import OffsetsReader

TOPIC = "batch.line.completed"
PARTITIONS = 4
TTL = 1.0
DEADLINE = 20.0
RATES = {"input_nano": 75_000_000, "cached_nano": 37_500_000, "output_nano": 300_000_000, "flag": None}
GROUPS = {sink: f"floopy-{sink.value}.{TOPIC}" for sink in Sink}


async def eventually(ask: Callable[[], Awaitable[Any]], what: str, within: float = DEADLINE) -> Any:
    deadline = time.monotonic() + within
    while not (answer := await ask()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what} not within {within} s")
        await asyncio.sleep(0.02)
    return answer


class Killed(BaseException):
    """Ends a worker where it stands, as far as one can inside a process."""


@dataclass
class Reports:
    """What workers and audits reported, by name."""

    seen: list[str] = field(default_factory=list)

    def written(self, lines: int, seconds: float) -> None:
        self.seen.append(f"written {lines}")

    def emitted(self, lines: int, seconds: float, *, again: bool) -> None:
        self.seen.append(f"emitted {lines}{' again' if again else ''}")

    def differs(self) -> None:
        self.seen.append("differs")

    def stuck(self) -> None:
        self.seen.append("stuck")

    def quarantined(self) -> None:
        self.seen.append("quarantined")

    def noted(self, note: str, lines: int) -> None:
        self.seen.append(f"noted {note} {lines}")

    def balanced(self, seconds: float) -> None:
        self.seen.append("balanced")

    def sent_again(self, segments: int) -> None:
        self.seen.append(f"sent again {segments}")

    def miscounted(self, sink: Sink) -> None:
        self.seen.append(f"miscounted {sink.value}")


class Delivery:
    """One database, one broker, and what stands between them."""

    def __init__(self, mongo: Mongo, settings: KafkaSettings, producer: Producer, scratch: Path) -> None:
        self.mongo = mongo
        self.settings = settings
        self.producer = producer
        self.blobs = BlobStore(mongo)
        self.scratch = scratch
        self.reports = Reports()
        self.changed: list[str] = []
        self.clock = SystemClock()
        self._stack = AsyncExitStack()

    async def close(self) -> None:
        await self._stack.aclose()

    async def plan(self, lines: int = 20, segment_lines: int = 10, **changes: Any) -> dict[str, Any]:
        """A batch whose lines are all answered: every fifth with an error, the rest with a completion."""
        now = datetime.now(UTC)
        batch_id, plan_id = new_batch_id(), new_plan_id()
        raw, entries = bytearray(), []
        for number in range(1, lines + 1):
            body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": f"Question {number}"}]}
            request = {"custom_id": f"user-{number}", "method": "POST", "url": "/v1/chat", "body": body}
            line = json.dumps(request).encode()
            entries.append((number, len(raw), len(line), 0))
            raw += line + b"\n"
        blob = await self.blobs.put("input", raw, [batch_id])
        index = await self.blobs.put("index", pack_input(entries), [batch_id])
        segments = [
            self._segment(batch_id, plan_id, no, start, entries[start : start + segment_lines], now)
            for no, start in enumerate(range(0, lines, segment_lines))
        ]
        batch = {
            "_id": batch_id,
            "org_id": "org_1",
            "api_key_id": "key_1",
            "version": 2,
            "status": "completed",
            "created_at": now,
            "completed_at": now,
            "endpoint": "/v1/chat/completions",
            "provider": "openai",
            "input": {"ranges": [{"blob": blob.id, "offset": 0, "length": blob.length}]},
            "context": {"content_policy": "reference", "session_id": None},
            "plan": {
                "plan_id": plan_id,
                "total": lines,
                "segments": len(segments),
                "groups": [{"model": "gpt-4o-mini", "rates": RATES}],
                "index_blob": index.id,
                "price_version": "test",
            },
            "counts": {"total": lines, "completed": 0, "failed": 0},
            "ending": None,
            "audit": {
                "stage": "open",
                "next_at": now,
                **dict.fromkeys(("answered", "logged", "metered", "scored", "parked"), 0),
                "balanced": False,
            },
            **changes,
        }
        await self.mongo.collection("batches").insert_new(batch)
        await self.mongo.collection("segments").insert_many(segments)
        await self.settle(batch, {number: number % 5 == 0 for number in range(1, lines + 1)})
        return batch

    def _segment(
        self, batch_id: str, plan_id: str, no: int, start: int, part: list[Any], now: datetime
    ) -> dict[str, Any]:
        return {
            "_id": segment_id(plan_id, no),
            "batch_id": batch_id,
            "org_id": "org_1",
            "plan_id": plan_id,
            "no": no,
            "first_line": part[0][0],
            "last_line": part[-1][0],
            "lines": len(part),
            "bytes": sum(length for _, _, length, _ in part),
            "index_from": start,
            "index_to": start + len(part),
            "ready": True,
            "state": "open",
            **dict.fromkeys(("lease", "manifest", "counts", "usage", "emitted")),
            "created_at": now,
        }

    async def settle(self, batch: dict[str, Any], fails: dict[int, bool], depth: int = 0) -> None:
        """A shard over the lines of `fails`, with its archive; True: the line failed in passing."""
        results, entries = bytearray(), []
        for number, failed in sorted(fails.items()):
            raw = failure(number) if failed else success(number, f"Answer {number} at {depth}")
            flag = FLAG_RETRYABLE if failed else FLAG_OK
            entries.append((number, len(results), len(raw), 0, flag))
            results += raw + b"\n"
        archive = await self.blobs.put("archive", results, [batch["_id"]])
        index = await self.blobs.put("results", pack_result(entries), [batch["_id"]])
        now = datetime.now(UTC)
        segments = await self.segments(batch)
        shard = {
            "_id": shard_id(batch["plan"]["plan_id"], 0) + ".r" * depth,
            "batch_id": batch["_id"],
            "plan_id": batch["plan"]["plan_id"],
            "no": 0,
            "depth": depth,
            "group": 0,
            "provider": "openai",
            "provider_batch_id": "batch_upstream",
            "ranges": runs(sorted(fails), range(1, batch["plan"]["total"] + 1)),
            "segments": [
                s["no"] for s in segments if any(s["first_line"] <= n <= s["last_line"] for n in fails)
            ],
            "state": "settled",
            "ended": "finished",
            "ended_at": now,
            "submitted_at": now,
            "archive": {
                "index_blob": index.id,
                "output": {"blob": archive.id, "length": archive.length},
                "error": None,
            },
            "refused": None,
        }
        await self.mongo.collection("shards").insert_new(shard)

    def worker(
        self,
        *,
        hit: Callable[[str], None] = lambda _: None,
        producer: Producer | None = None,
        concurrency: int = 2,
        small: int = 0,
        ready: ReadySegments | None = None,
        scan: float = 0.0,
        owner: str = "worker",
        pause: float = 0.1,
        gate: tuple[float, float] = (0.2, 1.0),
        renderer: SegmentRenderer | None = None,
    ) -> SegmentWorker:
        pools = SegmentPools(Pool(concurrency, concurrency, lambda: None), Pool(small, small, lambda: None))
        self._stack.push_async_callback(pools.close)
        archives = ScratchArchives(self.scratch / owner, self.blobs, max_result=10**9, max_total=10**9)

        async def changed(batch_id: str) -> None:
            self.changed.append(batch_id)

        return SegmentWorker(
            segments=SegmentStore(self.mongo, owner, TTL),
            batches=BatchStore(self.mongo),
            materials=Materials(
                inputs=SegmentInputs(self.blobs), archives=archives, formats=lambda _: OpenAiResults()
            ),
            parts=self.blobs,
            emitter=Emitter(producer=producer or self.producer, partitions=PARTITIONS, hit=hit),
            gate=Gate(*gate, self.clock.monotonic),
            renderer=renderer or Here(asyncio.Lock()),
            ready=ready or ReadySegments(),
            pools=pools,
            changed=changed,
            audit=changed,
            reports=self.reports,
            now=self.clock.now,
            monotonic=self.clock.monotonic,
            hit=hit,
            max_event_bytes=self.settings.max_message_bytes,
            pause=pause,
            scan=scan,
        )

    def auditor(
        self,
        *,
        offsets: OffsetsReader | None = None,
        backoff_min: float = 0.0,
        retention: float = 1_000.0,
        owner: str = "auditor",
        hit: Callable[[str], None] = lambda _: None,
    ) -> Auditor:
        audits = AuditStore(self.mongo, owner, TTL)
        return Auditor(
            audits=audits,
            recount=Recount(recounts=audits, reports=self.reports),
            offsets=offsets or self.offsets(),
            times=AuditTimes(0.0, backoff_min, 4 * backoff_min, retention),
            emit_again=lambda: None,
            reports=self.reports,
            now=self.clock.now,
            hit=hit,
        )

    def offsets(self, settings: KafkaSettings | None = None) -> KafkaOffsets:
        chosen = settings or self.settings
        groups = {sink: chosen.topic_prefix + group for sink, group in GROUPS.items()}
        reader = KafkaOffsets(chosen, groups, pause=0.1)
        self._stack.push_async_callback(reader.close)
        return reader

    async def segments(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        return await self.mongo.collection("segments").find_all({"batch_id": batch["_id"]}, sort=[("no", 1)])

    async def in_state(self, batch: dict[str, Any], state: str) -> bool:
        return all(segment["state"] == state for segment in await self.segments(batch))

    async def until_in(self, batch: dict[str, Any], no: int, state: str) -> None:
        """Wait until one segment is in `state`."""
        async with asyncio.timeout(20):
            while (await self.segments(batch))[no]["state"] != state:
                await asyncio.sleep(0.02)

    async def until(self, worker: SegmentWorker, batch: dict[str, Any], state: str) -> list[dict[str, Any]]:
        """Step until every segment is in `state`."""

        async def stepped() -> bool:
            await worker.step()
            return await self.in_state(batch, state)

        await eventually(stepped, f"segments {state}")
        return await self.segments(batch)

    async def emitted(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        return await self.until(self.worker(owner="first"), batch, "emitted")

    async def read(self, partition: int, first: int, last: int) -> list[bytes]:
        """Values of the records from offset `first` to `last`."""
        place = TopicPartition(self.settings.topic_prefix + TOPIC, partition)
        consumer = AIOKafkaConsumer(bootstrap_servers=self.settings.bootstrap_servers)
        await consumer.start()
        try:
            consumer.assign([place])
            consumer.seek(place, first)
            values = []
            async with asyncio.timeout(DEADLINE):
                while len(values) <= last - first:
                    values.append((await consumer.getone()).value)
            return values
        finally:
            await consumer.stop()

    async def commit(self, sink: Sink, partition: int, offset: int) -> None:
        """The sink's group goes on at `offset`."""
        place = TopicPartition(self.settings.topic_prefix + TOPIC, partition)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.settings.bootstrap_servers,
            group_id=self.settings.topic_prefix + GROUPS[sink],
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            consumer.assign([place])
            await consumer.commit({place: offset})
        finally:
            await consumer.stop()

    async def confirm(
        self, segment: dict[str, Any], sinks: tuple[Sink, ...] = tuple(Sink), parked: int = 0
    ) -> None:
        """What a sink leaves of a segment: rows, rollup, receipt."""
        batch_id, no, lines = segment["batch_id"], segment["no"], segment["lines"]
        for sink in sinks:
            rows = [
                {"_id": line_id(batch_id, number)}
                for number in range(segment["first_line"], segment["last_line"] + 1)
            ]
            await self.mongo.collection(ROWS_OF[sink]).insert_missing(rows)
            if sink is Sink.METERING:
                rollup = {"_id": rollup_id(batch_id, no), "batch_id": batch_id, "lines": lines}
                await self.mongo.collection("usage_rollups").replace(
                    {"_id": rollup["_id"]}, rollup, upsert=True
                )
            receipt = {
                "_id": receipt_id(batch_id, no, sink.value),
                "batch_id": batch_id,
                "sink": sink.value,
                "segment": no,
                "lines": lines,
                "parked": parked,
            }
            await self.mongo.collection("receipts").insert_new(receipt)

    async def audit_of(self, batch: dict[str, Any]) -> dict[str, Any]:
        found = await self.mongo.collection("batches").find_one({"_id": batch["_id"]})
        assert found is not None
        return dict(found["audit"])

    async def part(self, batch: dict[str, Any], kind: str) -> bytes:
        """The bytes of all parts of a kind, in order."""
        parts = [segment["manifest"][kind] for segment in await self.segments(batch)]
        return b"".join([await self.blobs.read_bytes(part["blob"]) for part in parts if part])


def success(line: int, text: str) -> bytes:
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14},
    }
    response = {"status_code": 200, "request_id": f"req_{line}", "body": body}
    return json.dumps({"custom_id": f"n-{line}", "response": response, "error": None}).encode()


def failure(line: int) -> bytes:
    body = {"error": {"message": "try later", "type": "server_error", "param": None, "code": None}}
    response = {"status_code": 503, "request_id": f"req_{line}", "body": body}
    return json.dumps({"custom_id": f"n-{line}", "response": response, "error": None}).encode()


@pytest.fixture
async def settings(broker: Broker) -> KafkaSettings:
    chosen = KafkaSettings(
        bootstrap_servers=broker.bootstrap_servers,
        topic_prefix=f"{uuid.uuid4().hex}.",
        idempotent=broker.idempotent,
        partitions=PARTITIONS,
        send_timeout=10.0,
    )
    await create_topic(chosen)
    return chosen


async def create_topic(settings: KafkaSettings) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(settings.topic_prefix + TOPIC, PARTITIONS, 1)])
    finally:
        await admin.close()


@pytest.fixture
async def delivery(mongo: Mongo, settings: KafkaSettings, tmp_path: Path) -> AsyncIterator[Delivery]:
    async with open_producer(settings) as producer:
        opened = Delivery(mongo, settings, producer, tmp_path)
        yield opened
        await opened.close()


@pytest.fixture
def make_topic() -> Callable[[KafkaSettings], Awaitable[None]]:
    return create_topic


@pytest.fixture
def wait_until() -> Callable[..., Awaitable[Any]]:
    return eventually


@pytest.fixture
def killed() -> type[BaseException]:
    return Killed
