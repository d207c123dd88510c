"""Batches as the API leaves them, a planner over the real stores, and what both leave in the database."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from floopy_batches.documents import CHAT, batch_document, input_of

from floopy_common.chassis.clock import SystemClock
from floopy_common.chassis.mongo import Mongo
from floopy_common.domain.batch import BatchStatus, Ending
from floopy_common.domain.ids import new_batch_id
from floopy_common.providers.anthropic.capabilities import ModelTable
from floopy_common.providers.anthropic.policy import policy_of
from floopy_common.providers.pricing import PriceTable
from floopy_common.settings import AnthropicSettings
from floopy_common.stores.batches import BatchStore
from floopy_common.stores.blobs import BlobStore, FileReader
from floopy_common.stores.caps import CapStore, month_of
from floopy_common.stores.files import FileStore
from floopy_common.stores.planning import PlanningStore
from floopy_submitter.core.cutting import SegmentLimits, ShardLimits
from floopy_submitter.core.kept import SMALL, KeptInputs
from floopy_submitter.core.planner import Planner
from floopy_submitter.core.planning import PLANNING, Planning
from floopy_submitter.core.slots import Slots
from floopy_submitter.core.solitude import Solitude, Survivors
from floopy_submitter.core.stored_files import StoredFiles
from floopy_submitter.core.translation import TranslationPlanner
from floopy_submitter.core.translator import Translators

DEADLINE = 30.0


def line_of(custom_id: str, model: str = "gpt-4o-mini", content: str = "Hello") -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": content}]}
    line = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}
    return json.dumps(line).encode()


class Input:
    """The real reader; `between` runs before every piece of the input."""

    def __init__(self, blobs: BlobStore, between: Callable[[], Awaitable[None]]) -> None:
        self._files = FileReader(blobs)
        self._between = between

    async def read_ranges(
        self, ranges: Iterable[Mapping[str, Any]], offset: int = 0, length: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        async for piece in self._files.read_ranges(ranges, offset, length):
            await self._between()
            yield piece


class Bundled:
    """What is bundled and configured, nobody asked."""

    def __init__(self, claude: AnthropicSettings) -> None:
        self._table = ModelTable(claude.models)

    async def of(self, account_id: str) -> ModelTable:
        return self._table


class Steps:
    """Plans as many batches as there are slots and waits for them, then one that was left behind; tidies up
    where none waits.
    """

    def __init__(self, store: PlanningStore, planner: Planner, slots: int) -> None:
        self._store = store
        self._slots = [Slots(slots, lambda: None), Slots(1, lambda: None)]
        small, large = self._slots
        solitude = Solitude(lambda: None)
        self._planning = Planning(
            store=store, planner=planner, small=small, large=large, solitude=solitude, now=SystemClock().now
        )
        solitude.join(PLANNING, self._slots, lambda: None)
        self._survivors = Survivors(solitude=solitude, kinds=[self._planning])

    def planned_by(self, wrap: Callable[[Planner], Any]) -> Any:
        """What plans from now on, around the planner."""
        self._planning._planner = wrap(self._planning._planner)
        return self._planning._planner

    async def step(self) -> bool:
        """Whether there was anything to do."""
        more = await self._planning.step()
        started = any(slots.is_busy for slots in self._slots)
        for slots in self._slots:
            await slots.close(DEADLINE)
        more = await self._survivors.step() or more
        started = self._survivors.slots.is_busy or started
        await self._survivors.slots.close(DEADLINE)
        return more or started or await self._store.tidy_next()


class World:
    """Organisations with batches to plan."""

    long_ago = datetime(2020, 1, 1, tzinfo=UTC)

    def __init__(self, mongo: Mongo) -> None:
        self.mongo = mongo
        self.blobs = BlobStore(mongo)
        self.batches = BatchStore(mongo)
        self.caps = CapStore(mongo)
        self.models: Any = None
        self.kept = KeptInputs()
        self.steps: list[str] = []
        self.woken: list[str] = []

    def store(self, owner: str = "a", ttl: float = 15.0) -> PlanningStore:
        return PlanningStore(self.mongo, owner, ttl)

    async def claim(self, owner: str = "a", ttl: float = 15.0) -> Any:
        """The claim of whichever batch is next, None where none waits."""
        store, now = self.store(owner, ttl), SystemClock().now()
        for queue in await store.waiting("", 1, bound=SMALL, large=False):
            return await store.claim(queue.batch_ids[0], now)
        left = await store.left_behind()
        return None if left is None else await store.claim(left["_id"], now, left=True)

    def planner(
        self,
        *,
        ttl: float = 15.0,
        segment: tuple[int, int] = (5_000, 16 * 1024 * 1024),
        shard: tuple[int, int] = (50_000, 200_000_000),
        between: Callable[[], Awaitable[None]] | None = None,
        claude: AnthropicSettings | None = None,
        mixed_models: bool = True,
        slots: int = 1,
    ) -> Steps:
        store = self.store(ttl=ttl)
        planner = Planner(
            store=store,
            blobs=self.blobs,
            files=FileReader(self.blobs) if between is None else Input(self.blobs, between),
            prices=PriceTable(),
            segment=SegmentLimits(*segment),
            shard=ShardLimits(*shard),
            translations={"anthropic": self._translation(claude or AnthropicSettings(), ShardLimits(*shard))},
            mixed_models=mixed_models,
            kept=self.kept,
            planned=lambda: self.woken.append("planned"),
            refused=lambda: self.woken.append("refused"),
            now=SystemClock().now,
            hit=self.steps.append,
        )
        return Steps(store, planner, slots)

    def _translation(self, claude: AnthropicSettings, limits: ShardLimits) -> TranslationPlanner:
        files = StoredFiles(FileStore(self.mongo), self.blobs, FileReader(self.blobs), claude.file_bytes)
        return TranslationPlanner(
            blobs=self.blobs,
            reader=FileReader(self.blobs),
            files=files,
            translators=Translators(self.blobs, files, str.encode),
            models=self.models or Bundled(claude),
            policy=policy_of(claude),
            limits=limits.within(ShardLimits(claude.shard_lines, claude.shard_bytes)),
        )

    async def create(
        self, content: bytes | None, *, org_id: str = "org_a", cap: int | None = None, **changes: Any
    ) -> str:
        """A batch as the API inserts it; its id."""
        batch_id = new_batch_id()
        snapshot = None
        if content is not None:
            blob = await self.blobs.put("input", content, [batch_id])
            snapshot = input_of(blob.id, blob.length)
        document = batch_document(batch_id, org_id, "acct_test", snapshot, cap=cap)
        assert await self.batches.insert({**document, **changes})
        return batch_id

    async def batch(self, batch_id: str) -> dict[str, Any]:
        found = await self.batches.get(batch_id)
        assert found is not None
        return found

    async def segments(self, batch_id: str) -> list[dict[str, Any]]:
        return await self._plan_documents("segments", batch_id)

    async def shards(self, batch_id: str) -> list[dict[str, Any]]:
        return await self._plan_documents("shards", batch_id)

    async def _plan_documents(self, name: str, batch_id: str) -> list[dict[str, Any]]:
        return await self.mongo.collection(name).find_all({"batch_id": batch_id}, sort=[("_id", 1)])

    async def index_blobs(self) -> list[dict[str, Any]]:
        return await self.mongo.collection("blobs").find_all({"kind": "index"})

    async def cancel(self, batch_id: str) -> None:
        """As the API does."""
        now = datetime.now(UTC)
        fields = {"ending": Ending.CANCELLED.value, "ending_at": now}
        moved = await self.batches.transition(
            await self.batch(batch_id), BatchStatus.CANCELLING, now=now, by="floopy-api", fields=fields
        )
        assert moved is not None

    async def expire_lease(self, batch_id: str, attempt: int | None = None) -> None:
        """As if the lease's holder had been silent for longer than the lease lives."""
        fields: dict[str, Any] = {"lease.expires_at": self.long_ago}
        if attempt is not None:
            fields["lease.attempt"] = attempt
        assert await self.batches.mark(batch_id, {}, fields)

    async def reserved(self, org_id: str = "org_a") -> int:
        return await self.caps.used(org_id, month_of(datetime.now(UTC)))

    async def refusal(self, batch_id: str) -> dict[str, Any]:
        """The only error of the batch once a planner had it."""
        assert await self.planner().step()
        batch = await self.batch(batch_id)
        assert batch["status"] == "failed"
        [error] = batch["errors"]
        return dict(error)


@pytest.fixture
def world(mongo: Mongo) -> World:
    return World(mongo)


@pytest.fixture
def make_line() -> Callable[..., bytes]:
    return line_of


@pytest.fixture
def make_lines() -> Callable[[int], bytes]:
    """The content of a file of so many requests."""
    return lambda count: b"".join(line_of(f"request-{number}") + b"\n" for number in range(1, count + 1))
