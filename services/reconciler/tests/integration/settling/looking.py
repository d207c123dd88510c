"""Open shards of one account, and reconcilers that do nothing but look at them."""

import asyncio
import uuid
from datetime import UTC, datetime
from typing import Any

from floopy_providers.account import lines_of
from floopy_providers.claude import NONCE, elements_of, in_pieces
from pydantic import SecretStr
from waiting import eventually

from floopy.simulation import OwnSimulator
from floopy_common.chassis.mongo import Mongo
from floopy_common.chassis.secrets import Keyring
from floopy_common.providers.clients import Clients
from floopy_common.providers.port import AttemptInput, CreateRequest
from floopy_common.stores.accounts import AccountStore
from floopy_common.stores.listings import ListingStore
from floopy_common.stores.polling import PollStore
from floopy_reconciler.core.collector import Collector
from floopy_reconciler.core.listing import Lister
from floopy_reconciler.core.look import Pace
from floopy_reconciler.core.poll import Poller
from floopy_reconciler.core.pool import Pool
from floopy_reconciler.core.schedule import Schedule
from floopy_reconciler.metrics import PrometheusReports

from .world import SECRET

LIST = {"openai": "batches.list", "anthropic": "messages.batches.list"}
GET = {"openai": "batches.get", "anthropic": "messages.batches.get"}
PACE = Pace(20.0, 60.0)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class Collected:
    """Stands where results are collected, which is not what is tested here."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    async def settle(self, shard: dict[str, Any], look: Any, provider: Any) -> None:
        self.ids.append(shard["_id"])


class Reconciler:
    """The looking part of one reconciler."""

    def __init__(self, mongo: Mongo, clients: Clients, owner: str, threshold: int = 3) -> None:
        self.polls = PollStore(mongo, owner, 30)
        self.listings = ListingStore(mongo, owner, 30)
        self.changed: list[str] = []
        self.collected = Collected()
        self.looks = Pool(8, 8, lambda: None)
        self.readings = Pool(4, 1, lambda: None)
        self.downloads = Pool(4, 4, lambda: None)
        collector = Collector(self.collected, self.downloads, self.downloads, PrometheusReports())  # type: ignore[arg-type]
        schedule = Schedule(
            listings=self.listings,
            jobs=self.readings,
            threshold=threshold,
            longest=PACE.longest,
            monotonic=asyncio.get_running_loop().time,
        )
        common: dict[str, Any] = {
            "shards": self.polls,
            "providers": clients,
            "collector": collector,
            "pace": PACE,
            "changed": self._changed,
            "reports": PrometheusReports(),
        }
        self.lister = Lister(schedule=schedule, listed=self.listings, **common)
        self.poller = Poller(
            listings=self.lister,
            pool=self.looks,
            claim_for=30,
            now=lambda: datetime.now(UTC),
            hit=lambda _: None,
            **common,
        )

    async def _changed(self, batch_id: str) -> None:
        self.changed.append(batch_id)

    async def close(self) -> None:
        for pool in (self.looks, self.readings, self.downloads):
            await pool.close()


class Scene:
    """Open shards of one account at one provider."""

    def __init__(self, mongo: Mongo, sim: OwnSimulator, clients: Clients, provider: str) -> None:
        self.mongo = mongo
        self.shards = mongo.collection("shards")
        self.sim = sim
        self.clients = clients
        self.provider = provider
        self.account_id = ""
        self._file_id: str | None = None

    async def open(self) -> None:
        store = AccountStore(self.mongo, Keyring(SecretStr(SECRET)))
        key = SecretStr(f"sk-{uuid.uuid4().hex}")
        self.account_id = (await store.create("org_1", self.provider, None, key))["_id"]

    async def plant(self, count: int) -> list[str]:
        """Create provider batches with a shard each, due for long; their ids, oldest first."""
        ids = [await self._create() for _ in range(count)]
        await self.shards.insert_many([self._shard(name) for name in ids])
        return ids

    async def _create(self) -> str:
        client = await self.clients.for_account(self.account_id)
        source = None
        if self.provider == "openai":
            if self._file_id is None:
                content = lines_of(2)
                self._file_id = await client.prepare(
                    AttemptInput("a.jsonl", len(content), in_pieces(content))
                )
        else:
            content = elements_of(2)
            source = AttemptInput("a", len(content), in_pieces(content))
        request = CreateRequest(
            "att_1", NONCE, "/v1/chat/completions", self._file_id, lambda: None, input=source
        )
        return (await client.create(request)).id

    def _shard(self, provider_batch_id: str) -> dict[str, Any]:
        return {
            "_id": f"shard-{provider_batch_id}",
            "batch_id": f"of-{provider_batch_id}",
            "account_id": self.account_id,
            "lines": 1,
            "bytes": 100,
            "provider": self.provider,
            "state": "submitted",
            "provider_batch_id": provider_batch_id,
            "provider_status": None,
            "provider_counts": None,
            "submitted_at": datetime.now(UTC),
            "poll": {"next_at": LONG_AGO, "interval": 20.0, "failures": 0, "started_at": None},
            "lease": None,
            "cancel_asked_at": None,
        }

    async def all(self) -> list[dict[str, Any]]:
        return await self.shards.find_all({}, sort=[("_id", 1)])

    async def one(self, provider_batch_id: str) -> dict[str, Any]:
        found = await self.shards.find_one({"provider_batch_id": provider_batch_id})
        assert found is not None
        return found

    async def due_again(self) -> None:
        await self.shards.update_many({}, {"$set": {"poll.next_at": LONG_AGO}})

    async def calls(self, ops: dict[str, str]) -> list[str]:
        return [call["path"] for call in await self.sim.calls(ops[self.provider])]

    async def settled(self, *reconcilers: Reconciler) -> None:
        """Let them work until nothing is due."""

        async def idle() -> bool:
            for reconciler in reconcilers:
                await reconciler.poller.step()
            now = datetime.now(UTC)
            due = [shard for shard in await self.all() if shard["poll"]["next_at"] <= now]
            return not due and not any(r.readings.saturated() or r.looks.saturated() for r in reconcilers)

        await eventually(idle, timeout=20, what="nothing due")
