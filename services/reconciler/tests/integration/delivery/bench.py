"""Batches whose shards have settled, workers that take them from there, and sinks reduced to their rows."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from waiting import eventually

from floopy_common.chassis.clock import SystemClock
from floopy_common.chassis.mongo import Mongo
from floopy_common.chassis.producer import Producer
from floopy_common.domain.ids import line_id, new_batch_id, new_plan_id, receipt_id, rollup_id
from floopy_common.domain.index import FLAG_OK, FLAG_RETRYABLE, pack_input, pack_result
from floopy_common.domain.segment import Sink, partition_of
from floopy_common.events.lines import decode_line
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
from floopy_reconciler.core.segments import SegmentPools, SegmentWorker
from floopy_reconciler.ports import OffsetsReader

from .documents import failure, new_batch, new_segment, new_shard, success

TOPIC = "batch.line.completed"
PARTITIONS = 4
TTL = 1.0
GROUPS = {sink: f"floopy-{sink.value}.{TOPIC}" for sink in Sink}


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
            new_segment(batch_id, plan_id, no, start, entries[start : start + segment_lines])
            for no, start in enumerate(range(0, lines, segment_lines))
        ]
        batch = new_batch(batch_id, plan_id, lines, len(segments), blob, index, **changes)
        await self.mongo.collection("batches").insert_new(batch)
        await self.mongo.collection("segments").insert_many(segments)
        await self.settle(batch, {number: number % 5 == 0 for number in range(1, lines + 1)})
        return batch

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
        kept = {
            "index_blob": index.id,
            "output": {"blob": archive.id, "length": archive.length},
            "error": None,
        }
        shard = new_shard(batch, sorted(fails), await self.segments(batch), depth, archive=kept)
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

        async def reached() -> bool:
            return bool((await self.segments(batch))[no]["state"] == state)

        await eventually(reached, timeout=20, what=f"segment {no} {state}")

    async def until(self, worker: SegmentWorker, batch: dict[str, Any], state: str) -> list[dict[str, Any]]:
        """Step until every segment is in `state`."""

        async def stepped() -> bool:
            await worker.step()
            return await self.in_state(batch, state)

        await eventually(stepped, timeout=20, what=f"segments {state}")
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
            async with asyncio.timeout(20):
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


async def check_events(delivery: Any, batch: dict[str, Any], segment: dict[str, Any]) -> None:
    """Its records lie where it says, one for each line, and what they refer to is a body."""
    place = segment["emitted"]
    assert place["partition"] == partition_of(batch["_id"], segment["no"], 4)
    assert place["times"] == 1
    values = await delivery.read(place["partition"], place["first_offset"], place["last_offset"])
    # segments that share a partition are sent side by side
    events = [line for value in values if (line := decode_line(value).data).segment.no == segment["no"]]
    numbers = range(segment["first_line"], segment["last_line"] + 1)
    assert [event.line_id for event in events] == [line_id(batch["_id"], n) for n in numbers]
    for event in events:
        assert event.response is not None
        body = await delivery.blobs.read_bytes(
            event.response.blob, event.response.offset, event.response.length
        )
        assert json.loads(body).keys() & {"choices", "error"}
