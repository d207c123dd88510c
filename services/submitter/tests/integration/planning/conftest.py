"""Batches as the API leaves them, a planner over the real stores, and what both leave in the database."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

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

CHAT = "/v1/chat/completions"
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
            snapshot = {
                "ranges": [{"blob": blob.id, "offset": 0, "length": blob.length}],
                "bytes": blob.length,
                "filename": "in.jsonl",
                "purpose": "batch",
            }
        document = {**_batch(batch_id, org_id, snapshot, cap), **changes}
        assert await self.batches.insert(document)
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

    async def eventually(self, ask: Callable[[], Awaitable[Any]], what: str) -> Any:
        deadline = time.monotonic() + DEADLINE
        while not (answer := await ask()):
            if time.monotonic() > deadline:
                pytest.fail(f"{what} not within {DEADLINE} s")
            await asyncio.sleep(0.02)
        return answer


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


def _batch(batch_id: str, org_id: str, snapshot: dict[str, Any] | None, cap: int | None) -> dict[str, Any]:
    now = SystemClock().now()
    moments = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
    progress = dict.fromkeys(("answered", "logged", "metered", "scored", "parked"), 0)
    return {
        "_id": batch_id,
        "org_id": org_id,
        "api_key_id": "key_test",
        "version": 1,
        "status": "validating",
        "created_at": now,
        "expires_at": now + timedelta(days=1),
        **dict.fromkeys(f"{moment}_at" for moment in moments),
        "endpoint": CHAT,
        "completion_window": "24h",
        "metadata": {"price": "$5 off", "all": "$$ROOT"},
        "output_expires_after": None,
        "provider": "openai",
        "account_id": "acct_test",
        "input_file_id": "file-test",
        "input": snapshot,
        "context": {
            "plan": "pro",
            "feedback": True,
            "monthly_line_cap": cap,
            "retention_days": 30,
            "content_policy": "reference",
            "sample_rate": 0.0,
            "session_id": None,
            "headers": {},
        },
        "plan": None,
        "errors": None,
        "counts": {"total": 0, "completed": 0, "failed": 0},
        "summary": {"shards": {}, "queue": None, "counts": {"completed": 0, "failed": 0}},
        "usage": None,
        "output_file_id": None,
        "error_file_id": None,
        "ending": None,
        "ending_at": None,
        "audit": {"stage": "idle", "next_at": None, **progress, "balanced": False},
        "request_hash": "hash",
        "retry_count": 0,
        "outbox": [],
        "lease": None,
        "next_look_at": now,
    }
