"""A consumer under way, and a handler that keeps what it was given."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from waiting import eventually

from floopy_common.chassis.consumer import Consumer, LineRecord, group_id, open_consumer
from floopy_common.domain.errors import Transient
from floopy_common.events.lines import LINE_COMPLETED
from floopy_common.settings import KafkaSettings
from floopy_common.stores.dead_letters import DeadLetterStore
from floopy_sinks.bench import Bench

SERVICE = "floopy-test"


class Taken:
    """A handler that keeps what it was given, and fails while it is told to."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.calls = 0
        self.failing = False

    async def __call__(self, records: Sequence[LineRecord]) -> None:
        self.calls += 1
        if self.failing:
            raise Transient("not now")
        self.lines += [record.line.line_id for record in records]

    async def have(self, count: int, timeout: float = 30.0) -> None:
        async def enough() -> bool:
            return len(self.lines) >= count

        await eventually(enough, timeout=timeout, what=f"{count} lines taken")


@asynccontextmanager
async def running(consumer: Consumer, *, ready: bool = True) -> AsyncIterator[asyncio.Task[None]]:
    stop = asyncio.Event()
    task = asyncio.create_task(consumer.run(stop))
    try:
        if ready:
            await eventually(consumer.ready, what="a consumer with its partitions")
        yield task
    finally:
        stop.set()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def consuming(bench: Bench, taken: Taken) -> AsyncIterator[Consumer]:
    async with open_consumer(bench.settings, SERVICE, DeadLetterStore(bench.mongo)) as consumer:
        consumer.lines(taken)
        async with running(consumer):
            yield consumer


def group_of(settings: KafkaSettings, topic: str = LINE_COMPLETED) -> str:
    return group_id(settings.topic_prefix, SERVICE, topic)
