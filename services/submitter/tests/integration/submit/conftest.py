"""Batches as the API and the planner leave them, a provider that is the real simulator, and the submitter."""

import asyncio
import json
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from floopy_batches.claude import KEY, PARTS, SKEW
from floopy_batches.documents import (
    CHAT,
    batch_document,
    input_of,
    plan_document,
    segment_document,
    shard_document,
)
from pydantic import SecretStr
from waiting import eventually

from floopy.simulation import KEPT, OwnSimulator
from floopy_common.chassis.mongo import Mongo
from floopy_common.chassis.secrets import Keyring
from floopy_common.domain.ids import new_batch_id, new_plan_id
from floopy_common.domain.index import pack_input
from floopy_common.domain.shard import ShardEnd
from floopy_common.providers.openai.request import upstream_length
from floopy_common.settings import Settings
from floopy_common.stores.accounts import AccountStore
from floopy_common.stores.blobs import BlobStore
from floopy_common.stores.ending import EndingStore
from floopy_common.stores.orphans import OrphanStore
from floopy_common.stores.polling import PollStore

SECRET = "a secret for tests that nobody needs to guess"
DEADLINE = 30.0
TERMS = {
    "FLOOPY_LEASE__TTL": "1",
    "FLOOPY_SUBMIT__CREATE_TIMEOUT": "2",
    "FLOOPY_SUBMIT__SETTLE_WINDOW": "3",
    "FLOOPY_SCAN__INTERVAL": "0.2",
    "FLOOPY_WAITING__MIN": "0.2",
    "FLOOPY_WAITING__MAX": "2",
    "FLOOPY_POLL__MAX": "0.5",
}
"""Durations of a test, in seconds; the product's own settings."""


def make_lines(count: int, model: str = "gpt-4o-mini") -> list[bytes]:
    lines = []
    for number in range(1, count + 1):
        body = {"model": model, "messages": [{"role": "user", "content": f"Question é {number}: why?"}]}
        line = {"custom_id": f"user-{number}", "method": "POST", "url": CHAT, "body": body}
        lines.append(json.dumps(line, ensure_ascii=False).encode())
    return lines


class World:
    """One organisation, its account at the simulator, and what is in the database."""

    def __init__(self, mongo: Mongo, simulator: OwnSimulator) -> None:
        self.mongo = mongo
        self.simulator = simulator
        self.blobs = BlobStore(mongo)
        self.org_id = f"org_{uuid.uuid4().hex[:16]}"
        self.keyring = Keyring(SecretStr(SECRET))

    async def account(self, key: str | None = None, provider: str = "openai") -> str:
        key = key or f"sk-{uuid.uuid4().hex}"
        accounts = AccountStore(self.mongo, self.keyring)
        return str((await accounts.create(self.org_id, provider, None, SecretStr(key)))["_id"])

    async def create(self, lines: list[bytes], account_id: str, **changes: Any) -> str:
        """A batch as the API inserts it; its id."""
        batch_id = new_batch_id()
        raw = b"\n".join(lines) + b"\n"
        blob = await self.blobs.put("input", raw, [batch_id])
        batch = batch_document(batch_id, self.org_id, account_id, input_of(blob.id, blob.length))
        await self.mongo.collection("batches").insert_new({**batch, **changes})
        return batch_id

    async def plan(self, lines: list[bytes], account_id: str, *, shard_lines: int = 1000) -> str:
        """A batch in progress as the planner leaves it, one segment and shard for every `shard_lines`."""
        plan_id = new_plan_id()
        batch_id = await self.create(lines, account_id)
        entries, offset = [], 0
        for number, line in enumerate(lines, start=1):
            entries.append((number, offset, len(line), 0))
            offset += len(line) + 1
        index = await self.blobs.put("index", pack_input(entries), [batch_id])
        parts = [entries[at : at + shard_lines] for at in range(0, len(entries), shard_lines)]
        for no, part in enumerate(parts):
            segment = segment_document(batch_id, self.org_id, plan_id, no, part)
            shard = shard_document(batch_id, self.org_id, plan_id, no, part, account_id)
            shard["bytes"] = sum(upstream_length(e[0], CHAT, _body_length(lines[e[0] - 1])) for e in part)
            await self.mongo.collection("segments").insert_new(segment)
            await self.mongo.collection("shards").insert_new(shard)
        plan = plan_document(plan_id, len(lines), len(parts), index.id)
        await self.update("batches", batch_id, status="in_progress", version=2, plan=plan)
        return batch_id

    async def update(self, collection: str, document_id: str, **changes: Any) -> None:
        await self.mongo.collection(collection).update_one({"_id": document_id}, {"$set": changes})

    async def shards(self, batch_id: str) -> list[dict[str, Any]]:
        return await self.mongo.collection("shards").find_all({"batch_id": batch_id}, sort=[("no", 1)])

    async def shard(self, batch_id: str) -> dict[str, Any]:
        """The batch's only shard."""
        (shard,) = await self.shards(batch_id)
        return shard

    async def batch(self, batch_id: str) -> dict[str, Any]:
        found = await self.mongo.collection("batches").find_one({"_id": batch_id})
        assert found is not None
        return found

    async def orphans(self) -> list[dict[str, Any]]:
        return await self.mongo.collection("orphan_provider_batches").find_all({})

    async def in_state(self, batch_id: str, *states: str, within: float = DEADLINE) -> list[dict[str, Any]]:
        """The batch's shards once there are any and all are in one of `states`."""

        async def ask() -> list[dict[str, Any]] | None:
            shards = await self.shards(batch_id)
            return shards if shards and all(shard["state"] in states for shard in shards) else None

        try:
            return await eventually(ask, timeout=within, what=f"shards in {states}")
        except AssertionError as failure:
            seen = [(s["state"], s["waiting"], s["attempts"]) for s in await self.shards(batch_id)]
            raise AssertionError(f"{failure}: {seen}") from failure

    async def kept(self) -> list[str]:
        """Provider batches that nobody cancelled."""
        return [batch["id"] for batch in await self.simulator.batches() if batch["status"] in KEPT]

    async def assert_one_kept_for_each(self, batch_id: str) -> None:
        """Every shard is submitted, and the provider keeps those very batches and no other."""
        shards = await self.shards(batch_id)
        assert {shard["state"] for shard in shards} == {"submitted"}
        recorded = sorted(shard["provider_batch_id"] for shard in shards)

        async def only_these() -> bool:
            return sorted(await self.kept()) == recorded

        await eventually(only_these, what="one kept provider batch for each shard")

    async def summary(self, batch_id: str, shards: dict[str, int]) -> None:
        """Wait until the batch shows these numbers of shards by state."""

        async def ask() -> bool:
            return bool((await self.batch(batch_id))["summary"]["shards"] == shards)

        await eventually(ask, what=f"a summary of {shards}")

    async def queue(self, batch_id: str) -> dict[str, Any]:
        """The batch's place in the provider's queue, once it is shown."""

        async def ask() -> Any:
            return (await self.batch(batch_id))["summary"]["queue"]

        return dict(await eventually(ask, what="a place in the queue"))

    async def executed(self, count: int) -> list[dict[str, Any]] | None:
        """The lines the provider has executed, once they are `count`."""
        rows = await self.simulator.executions()
        return rows if len(rows) == count else None

    async def deferred(self, batch_id: str) -> bool:
        return all(shard.get("submit_at") is not None for shard in await self.shards(batch_id))

    async def holding(self, fault: str) -> bool:
        """Whether a scripted hold keeps a call."""
        return bool((await self.simulator.fault_state(fault))["waiting"])

    async def hits(self, fault: str, count: int) -> bool:
        """Whether a scripted fault has met so many calls."""
        return int((await self.simulator.fault_state(fault))["hits"]) >= count

    async def repair(self, fault: str) -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.delete(f"{self.simulator.url}/_sim/faults/{fault}") as answer,
        ):
            assert answer.status < 300

    async def create_upstream(self, key: str, input_file_id: str) -> str:
        """A provider batch of the same input by somebody else's hand."""
        async with openai.AsyncOpenAI(
            api_key=key, base_url=self.simulator.openai_base_url, max_retries=0
        ) as sdk:
            created = await sdk.batches.create(
                input_file_id=input_file_id, endpoint=CHAT, completion_window="24h"
            )
        return created.id

    async def settled_orphans(self) -> list[dict[str, Any]]:
        return [orphan for orphan in await self.orphans() if orphan["settled"]]

    async def note_orphan(self, shard: dict[str, Any], provider_batch_id: str) -> None:
        await OrphanStore(self.mongo).insert(shard, "att_test", provider_batch_id, "late")

    async def end_overdue(self, shard: dict[str, Any]) -> None:
        """As the reconciler ends what has not ended in its time of grace."""
        await EndingStore(self.mongo).end_overdue(shard["batch_id"], shard["plan_id"], ShardEnd.CANCELLED)

    async def detach(self, shard: dict[str, Any]) -> None:
        """As the reconciler does when every result of a provider batch is somebody else's."""
        async with PollStore(self.mongo, "test", 5).hold(shard) as hold:
            assert hold is not None
            await hold.detach()

    async def swept(self, batch_id: str) -> bool:
        return all("sweep" in shard and shard["sweep"] is None for shard in await self.shards(batch_id))

    async def sent_events(self, batch_id: str) -> bool:
        """Whether nothing of the batch waits in an outbox any more."""
        rows = [*await self.shards(batch_id), await self.batch(batch_id)]
        return not any(entry["by"] == "floopy-submitter" for row in rows for entry in row.get("outbox", []))


class Process:
    """A `floopy-submitter` of its own."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._environment = environment
        self.log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, **settings: str) -> None:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                Path(sys.executable).parent / "floopy-submitter",
                env={**os.environ, **self._environment, **settings},
                stdout=log,
                stderr=log,
            )

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def died(self, within: float = DEADLINE) -> int:
        """The exit code, once it has ended by itself."""
        assert self._process is not None
        try:
            return await asyncio.wait_for(self._process.wait(), within)
        except TimeoutError:
            pytest.fail(f"still running after {within} s: {self.log.read_text()[-3000:]}")

    async def end(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            await self._process.wait()


@pytest.fixture
def world(mongo: Mongo, simulator: OwnSimulator) -> World:
    return World(mongo, simulator)


@pytest.fixture
async def quiet(simulator: OwnSimulator) -> None:
    """Provider batches stay as they are until told otherwise."""
    await simulator.configure(auto=False)


@pytest.fixture
def environment(
    mongo_uri: str, mongo_database: str, simulator: OwnSimulator, embedded_bootstrap: str, tmp_path: Path
) -> dict[str, str]:
    """What a service of this test is told."""
    return {
        **TERMS,
        "FLOOPY_MONGO__URI": mongo_uri,
        "FLOOPY_MONGO__DATABASE": mongo_database,
        "FLOOPY_KAFKA__BOOTSTRAP_SERVERS": embedded_bootstrap,
        "FLOOPY_KAFKA__IDEMPOTENT": "false",
        "FLOOPY_KAFKA__TOPIC_PREFIX": f"{uuid.uuid4().hex[:12]}.",
        "FLOOPY_PROVIDERS__OPENAI__BASE_URL": simulator.openai_base_url,
        "FLOOPY_PROVIDERS__ANTHROPIC__BASE_URL": simulator.anthropic_base_url,
        "FLOOPY_SECRET_KEY": SECRET,
        "FLOOPY_WORK_DIR": str(tmp_path),
    }


@pytest.fixture
async def new_process(environment: dict[str, str], tmp_path: Path) -> AsyncIterator[Callable[[], Process]]:
    """Makes processes, which are gone after the test."""
    made: list[Process] = []

    def make() -> Process:
        made.append(Process(environment, tmp_path / f"submitter-{len(made)}.log"))
        return made[-1]

    yield make
    for process in made:
        await process.end()


Running = Callable[..., Any]


@pytest.fixture
def running(mongo: Mongo, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Running:
    """The submitter's loops in this process, without planning and Kafka; keyword arguments are settings."""
    from floopy_common.providers.clients import open_clients
    from floopy_submitter.main import Wiring

    @asynccontextmanager
    async def run(*parts: str, **settings: str) -> AsyncIterator[Wiring]:
        for name, value in {**environment, **settings}.items():
            monkeypatch.setenv(name, value)
        stop = asyncio.Event()
        made = Settings()
        async with open_clients(mongo, made, Keyring(made.secret_key)) as providers:
            wiring = Wiring(made, mongo, providers, f"test-{uuid.uuid4().hex[:6]}")
            for part in parts or ("submitting", "surviving", "recovering", "sweeping"):
                getattr(wiring, part)()
            tasks = [asyncio.create_task(loop.run(stop)) for loop in wiring.bells.loops.values()]
            try:
                yield wiring
            finally:
                stop.set()
                await asyncio.gather(*tasks)
                for slots in wiring.slots:
                    await slots.close(0.1)

    return run


def _body_length(line: bytes) -> int:
    return len(line) - line.index(b'"body": ') - len(b'"body": ') - 1


@pytest.fixture(name="make_lines")
def make_lines_fixture() -> Callable[..., list[bytes]]:
    return make_lines


@pytest.fixture
def start(world: Any) -> Callable[..., Any]:
    """A batch on Anthropic as the API leaves it; its id."""

    async def start(lines: list[bytes], account_id: str | None = None) -> str:
        account_id = account_id or await world.account(KEY, "anthropic")
        return str(await world.create(lines, account_id, provider="anthropic"))

    return start


@pytest.fixture
def claude_lines(make_lines: Any) -> Callable[..., list[bytes]]:
    return lambda count, **more: make_lines(count, model="claude-haiku-4-5", **more)


@pytest.fixture
def claude(running: Any) -> Callable[..., Any]:
    return lambda **settings: running(*PARTS, **{**SKEW, **settings})
