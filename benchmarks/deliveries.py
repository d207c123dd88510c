"""Line events in a broker, bodies in blobs, and the real sinks that take them."""

import asyncio
import os
import signal
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from pymongo import MongoClient

from benchmarks.data import answer, chat_line
from benchmarks.system import attached_credentials, attached_processes, until
from floopy.backends.backend import start
from floopy.backends.mongod import Mongod
from floopy.backends.ports import free_port
from floopy.backends.topics import TopicSpec, create_topics
from floopy.stack.brokers import BrokerChoice, choose_broker
from floopy.stack.services import service_program
from floopy_common.chassis.consumer import group_id
from floopy_common.chassis.mongo import Mongo, ensure_indexes, open_mongo
from floopy_common.chassis.producer import open_producer
from floopy_common.domain.ids import line_id
from floopy_common.domain.line import LineStatus
from floopy_common.domain.segment import partition_of
from floopy_common.events.lines import (
    LINE_COMPLETED,
    Content,
    LineCompleted,
    LineCost,
    LineTiming,
    LineUsage,
    SegmentRef,
    encode_line,
    line_event,
)
from floopy_common.settings import KafkaSettings, MongoSettings
from floopy_common.stores.blobs import BlobStore
from floopy_common.topics import creation_list, full_name

SINKS = {"metering": "usage_ledger", "logging": "requests", "feedback": "scores"}
"""Each sink and the collection of its rows."""
LINE_BYTES = 1_200
ANSWER_BYTES = 1_500
_START_SECONDS = 60.0
_SELDOM = 0.1
"""Seconds between two counts of receipts: asking is work for the very processes that are measured."""
_STANDSTILL = 120.0
"""Seconds after which Kafka takes a sink for dead, which only stands still while events are produced."""
_STANDSTILL_EMBEDDED = 20.0
"""The same of the embedded broker, which lets who joins a group wait for half of it."""
_PREVIEW = 200
_NOW = datetime(2026, 11, 25, 12, 30, tzinfo=UTC)

Record = tuple[bytes, bytes]


@dataclass(frozen=True)
class Backends:
    """A replica set, a broker, and their processes."""

    mongo_uri: str
    kafka: KafkaSettings
    pids: dict[str, int]


@dataclass(frozen=True)
class Delivery:
    """A batch of which every event is known: the records of each segment."""

    batch_id: str
    lines: int
    segments: list[list[Record]]


@asynccontextmanager
async def running_backends() -> AsyncIterator[Backends]:
    """mongod and the broker as `floopy up` runs them, with topics of their own."""
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="floopy-bench-")))
        known = attached_credentials()
        if known is not None:
            idempotent = choose_broker(BrokerChoice.AUTO, scratch, 1).idempotent
            uri, servers, pids = known["mongo_uri"], known["kafka_bootstrap_servers"], attached_processes()
        else:
            mongod = Mongod(scratch / "mongod")
            broker = choose_broker(BrokerChoice.AUTO, scratch, free_port())
            uri = await stack.enter_async_context(mongod)
            servers = await stack.enter_async_context(broker.backend)
            idempotent = broker.idempotent
            pids = {"mongod": mongod.process.pid, "broker": broker.backend.process.pid}
        kafka = KafkaSettings(
            bootstrap_servers=servers,
            topic_prefix=f"bench-{uuid.uuid4().hex[:8]}.",
            idempotent=idempotent,
            session_timeout=_STANDSTILL if idempotent else _STANDSTILL_EMBEDDED,
        )
        rows = creation_list(kafka.topic_prefix, kafka.partitions, kafka.max_message_bytes)
        await create_topics(servers, [TopicSpec(name, count, config) for name, count, config in rows])
        yield Backends(uri, kafka, {name: pids[name] for name in ("mongod", "broker")})


@asynccontextmanager
async def running_mongod() -> AsyncIterator[str]:
    """mongod alone, as `floopy up` runs it; its URI."""
    known = attached_credentials()
    if known is not None:
        yield str(known["mongo_uri"])
        return
    with tempfile.TemporaryDirectory(prefix="floopy-bench-") as scratch:
        async with Mongod(Path(scratch)) as uri:
            yield uri


@asynccontextmanager
async def fresh_database(mongo_uri: str) -> AsyncIterator[str]:
    """The name of an empty database, dropped afterwards."""
    database = f"bench_{uuid.uuid4().hex[:12]}"
    try:
        yield database
    finally:
        with MongoClient[dict[str, Any]](mongo_uri) as client:
            await asyncio.to_thread(client.drop_database, database)


class Bed:
    """A database of its own, and the sinks that write to it."""

    def __init__(self, backends: Backends, mongo: Mongo, database: str, sinks: Sequence[str]) -> None:
        self.backends = backends
        self.database = database
        self.sinks = sinks
        self.ports: dict[str, int] = {}
        self.pids = dict(backends.pids)
        self._blobs = BlobStore(mongo)
        self._mongo = mongo

    async def prepare(self, lines: int, segment_lines: int, tag: str) -> Delivery:
        """The batch, its bodies, and its events, none of which is sent yet."""
        batch_id = f"batch_{tag}_{uuid.uuid4().hex[:16]}"
        count = -(-lines // segment_lines)
        await self._mongo.collection("batches").insert_new(_batch(batch_id, count, lines))
        requests, responses = [], []
        async with self._blobs.writer("upload") as asked, self._blobs.writer("output") as answered:
            for number in range(1, lines + 1):
                line = chat_line(number, LINE_BYTES, tag)
                at = line.index(b'"body":') + len('"body":')
                requests.append((asked.length + at, len(line) - at - 2, _preview(line[at:])))
                await asked.write(line)
                head = b'{"custom_id":"%b-%d","response":{"status_code":200,"body":' % (tag.encode(), number)
                body = answer(number, ANSWER_BYTES)
                responses.append((answered.length + len(head), len(body), _preview(body)))
                await answered.write(head + body + b'},"error":null}\n')
        await self._written_out()
        segments = []
        for no in range(count):
            first = no * segment_lines + 1
            last = min(lines, first + segment_lines - 1)
            segment = SegmentRef(no, first, last, last - first + 1)
            segments.append(
                [
                    _record(
                        batch_id,
                        count,
                        segment,
                        number,
                        tag,
                        Content(asked.id, *requests[number - 1], unconstrained=True),
                        Content(answered.id, *responses[number - 1]),
                    )
                    for number in range(first, last + 1)
                ]
            )
        return Delivery(batch_id, lines, segments)

    async def _written_out(self) -> None:
        """Return once mongod has no bodies left to write to disk: that is not the sinks' work."""
        with MongoClient[dict[str, Any]](self.backends.mongo_uri) as client:
            await asyncio.to_thread(client.admin.command, "fsync")

    async def send(self, delivery: Delivery) -> None:
        """Produce every event, as the reconciler does: a segment goes to one partition, in order."""
        kafka = self.backends.kafka
        async with open_producer(kafka) as producer:
            for no, records in enumerate(delivery.segments):
                partition = partition_of(delivery.batch_id, no, kafka.partitions)
                for at in range(0, len(records), 1_000):
                    await producer.send_batch(LINE_COMPLETED, partition, records[at : at + 1_000])

    async def confirmed(self, delivery: Delivery) -> None:
        """Return once each sink has its receipt of every segment."""
        wanted = len(self.sinks) * len(delivery.segments)
        with MongoClient[dict[str, Any]](self.backends.mongo_uri) as client:
            receipts = client[self.database].receipts

            async def there() -> bool:
                found = await asyncio.to_thread(receipts.count_documents, {"batch_id": delivery.batch_id})
                return bool(found >= wanted)

            await until(there, 600, f"{wanted} receipts", _SELDOM)

    async def check(self, delivery: Delivery) -> None:
        """RuntimeError unless there is one whole row of each line in each collection."""
        ids = {"$gte": line_id(delivery.batch_id, 1), "$lte": line_id(delivery.batch_id, delivery.lines)}
        for sink in self.sinks:
            whole: dict[str, Any] = {"_id": ids, "status": "scored" if sink == "feedback" else "succeeded"}
            found = await self._mongo.collection(SINKS[sink]).count(whole)
            if found != delivery.lines:
                raise RuntimeError(f"{SINKS[sink]} has {found} of {delivery.lines} rows")

    async def caught_up(self) -> None:
        """Return once every sink has committed what its topic holds."""
        kafka = self.backends.kafka
        topic = full_name(kafka.topic_prefix, LINE_COMPLETED)
        places = [TopicPartition(topic, number) for number in range(kafka.partitions)]
        groups = [group_id(kafka.topic_prefix, f"floopy-{sink}", LINE_COMPLETED) for sink in self.sinks]
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
        async with open_ends(kafka) as consumer:
            ends = await consumer.end_offsets(places)
        await admin.start()

        async def all_committed() -> bool:
            for group in groups:
                found = await admin.list_consumer_group_offsets(group, partitions=places)
                if any(end and found[place].offset < end for place, end in ends.items()):
                    return False
            return True

        try:
            await until(all_committed, 600, "every offset committed")
        finally:
            await admin.close()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """The sinks stand still while the body runs."""
        pids = [self.pids[f"floopy-{sink}"] for sink in self.sinks]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def open_ends(kafka: KafkaSettings) -> AsyncIterator[Any]:
    """A consumer of no group, to ask where the log ends."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


@asynccontextmanager
async def running_sinks(backends: Backends, alone: str | None) -> AsyncIterator[Bed]:
    """The sinks' real processes on a fresh database, warmed up by nothing yet."""
    sinks = [alone] if alone else list(SINKS)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(fresh_database(backends.mongo_uri))
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="floopy-bench-")))
        settings = MongoSettings(uri=backends.mongo_uri, database=database)
        mongo = await stack.enter_async_context(open_mongo(settings, "benchmark"))
        await ensure_indexes(mongo)
        bed = Bed(backends, mongo, database, sinks)
        for sink in sinks:
            port = free_port(frozenset(bed.ports.values()))
            program = service_program(f"floopy-{sink}", port, _environment(backends, database, port))
            process = await start(program, logs / f"{sink}.log", _START_SECONDS)
            stack.push_async_callback(process.stop)
            bed.ports[f"floopy-{sink}"], bed.pids[f"floopy-{sink}"] = port, process.pid
        yield bed


def _environment(backends: Backends, database: str, port: int) -> Mapping[str, str]:
    kafka = backends.kafka
    return {
        "FLOOPY_MONGO__URI": backends.mongo_uri,
        "FLOOPY_MONGO__DATABASE": database,
        "FLOOPY_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "FLOOPY_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
        "FLOOPY_KAFKA__IDEMPOTENT": str(kafka.idempotent).lower(),
        "FLOOPY_KAFKA__SESSION_TIMEOUT": str(kafka.session_timeout),
        "FLOOPY_METRICS_PORT": str(port),
    }


def _preview(body: bytes) -> str:
    at = body.index(b'"content":"') + len('"content":"')
    return body[at : at + _PREVIEW].decode()


def _record(
    batch_id: str,
    segments: int,
    segment: SegmentRef,
    number: int,
    tag: str,
    request: Content,
    response: Content,
) -> Record:
    data = LineCompleted(
        source="batch",
        org_id="org_benchmark",
        api_key_id="key_benchmark",
        batch_id=batch_id,
        segments=segments,
        segment=segment,
        line_id=line_id(batch_id, number),
        line_no=number,
        custom_id=f"{tag}-{number}",
        provider="openai",
        model="gpt-4o-mini",
        endpoint="/v1/chat/completions",
        status=LineStatus.SUCCEEDED,
        status_code=200,
        error=None,
        finish_reason="stop",
        usage=LineUsage(250, 0, 300, 0, 550),
        cost=LineCost(108_750, None, "benchmark"),
        timing=LineTiming(_NOW, _NOW, _NOW),
        session_id=None,
        content_policy="reference",
        request=request,
        response=response,
    )
    return data.line_id.encode(), encode_line(line_event(data, _NOW))


def _batch(batch_id: str, segments: int, lines: int) -> dict[str, Any]:
    """What sinks read of a batch."""
    return {
        "_id": batch_id,
        "org_id": "org_benchmark",
        "api_key_id": "key_benchmark",
        "status": "in_progress",
        "created_at": _NOW,
        "plan": {"plan_id": f"plan_{batch_id}", "segments": segments, "total": lines, "month": "2026-11"},
        "context": {"plan": "benchmark", "feedback": True, "session_id": None, "content_policy": "reference"},
        "audit": {"stage": "open"},
    }
