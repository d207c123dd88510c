"""The poller and what collects results, with everything real behind them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from waiting import eventually

from floopy.simulation import OwnSimulator
from floopy_common.chassis.mongo import Mongo
from floopy_common.domain.index import ResultEntry, unpack_result
from floopy_common.providers.formats import RESULT_FORMATS
from floopy_common.stores.batches import BatchStore
from floopy_common.stores.blobs import BlobStore
from floopy_common.stores.finishing import PlannedLines
from floopy_common.stores.polling import PollStore
from floopy_reconciler.adapters.archives import ScratchArchives
from floopy_reconciler.core.collector import Collector
from floopy_reconciler.core.look import Pace
from floopy_reconciler.core.poll import Poller
from floopy_reconciler.core.pool import Pool, Pools
from floopy_reconciler.core.refuse import Backoff, Refuser
from floopy_reconciler.core.retry import RetryPolicy
from floopy_reconciler.core.settle import Patience, Settler
from floopy_reconciler.metrics import PrometheusReports

from .world import World, clients_of

OPEN = {"submitted", "cancelling", "downloading"}
PATIENCE = 2


class Bench:
    """The poller with everything real behind it."""

    def __init__(self, mongo: Mongo, world: World, poller: Poller, pools: Pools) -> None:
        self.mongo = mongo
        self.world = world
        self.poller = poller
        self.pools = pools

    async def collect(self, planted: Any) -> list[dict[str, Any]]:
        """Poll until no shard is with the provider any more; the shards then."""

        async def done() -> list[dict[str, Any]] | None:
            await self.poller.step()
            shards: list[dict[str, Any]] = await self.world.shards(planted)
            return shards if not any(shard["state"] in OPEN for shard in shards) else None

        return await eventually(done, timeout=20, what="every shard collected")

    async def entries(self, shard: dict[str, Any]) -> dict[int, ResultEntry]:
        packed = await self.world.blobs.read_bytes(shard["archive"]["index_blob"])
        entries = list(unpack_result(packed))
        assert [e.line_no for e in entries] == sorted({e.line_no for e in entries})
        return {entry.line_no: entry for entry in entries}

    async def archived(self, shard: dict[str, Any], entry: ResultEntry) -> bytes:
        part = shard["archive"]["error" if entry.source else "output"]
        return await self.world.blobs.read_bytes(part["blob"], entry.offset, entry.length)


class NoListings:
    """Each provider batch is looked at by itself."""

    async def start(self) -> set[str]:
        return set()

    def floor(self, account_id: str) -> float:
        return 0.0


@asynccontextmanager
async def opened_bench(
    mongo: Mongo, world: World, sim: OwnSimulator, scratch: Path, pace: Pace
) -> AsyncIterator[Bench]:
    polls, batches, lines = PollStore(mongo, "test", 30), BatchStore(mongo), PlannedLines(mongo, world.blobs)

    async def changed(_: str) -> None:
        return

    pools = Pools(
        Pool(8, 8, lambda: None),
        Pool(4, 1, lambda: None),
        Pool(4, 4, lambda: None),
        Pool(4, 4, lambda: None),
    )
    async with clients_of(mongo, sim) as clients:
        settler = Settler(
            shards=polls,
            batches=batches,
            lines=lines,
            archives=ScratchArchives(scratch, BlobStore(mongo), max_result=10**8, max_total=10**9),
            formats=RESULT_FORMATS.__getitem__,
            retries=RetryPolicy(depth=3, window_left=60),
            refuser=Refuser(
                shards=polls, batches=batches, lines=lines, backoff=Backoff(5, 60), fail_when_full=False
            ),
            patience=Patience(PATIENCE, PATIENCE, 0.01, 0.05),
            changed=changed,
            reports=PrometheusReports(),
            now=lambda: datetime.now(UTC),
            hit=lambda _: None,
        )
        poller = Poller(
            shards=polls,
            providers=clients,
            collector=Collector(settler, pools.downloads, pools.small_downloads, PrometheusReports()),
            listings=NoListings(),
            pool=pools.looks,
            pace=pace,
            claim_for=30,
            changed=changed,
            reports=PrometheusReports(),
            now=lambda: datetime.now(UTC),
            hit=lambda _: None,
        )
        yield Bench(mongo, world, poller, pools)
        await pools.close()
    # the scratch copy of a download never outlives it
    assert not list(scratch.glob("*.part"))


async def upstream_of(world: Any, planted: Any) -> str:
    return str((await world.shards(planted))[-1]["provider_batch_id"])
