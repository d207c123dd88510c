"""Many shards looked at by reading a list: none is missed, none is looked at twice, nothing late counts."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from floopy_providers.account import lines_of
from floopy_providers.claude import NONCE, elements_of, in_pieces
from pydantic import SecretStr

from floopy.simulation import OwnSimulator
from floopy_common.chassis.mongo import Mongo
from floopy_common.chassis.pipelines import assign, expire_in
from floopy_common.chassis.secrets import Keyring
from floopy_common.domain.errors import LeaseLost
from floopy_common.domain.shard import URGENT
from floopy_common.providers.clients import Clients, open_clients
from floopy_common.providers.port import AttemptInput, CreateRequest
from floopy_common.settings import AnthropicSettings, ProviderSettings, ProvidersSettings, Settings
from floopy_common.stores.accounts import AccountStore
from floopy_common.stores.ending import EndingStore
from floopy_common.stores.listings import ListingStore
from floopy_common.stores.polling import PollStore
from floopy_common.stores.refreshing import RefreshStore
from floopy_reconciler.core import listing
from floopy_reconciler.core.collector import Collector
from floopy_reconciler.core.listing import Lister
from floopy_reconciler.core.look import Pace
from floopy_reconciler.core.poll import Poller
from floopy_reconciler.core.pool import Pool
from floopy_reconciler.core.schedule import Schedule
from floopy_reconciler.metrics import PrometheusReports

SECRET = "a secret for tests that nobody needs to guess"
PROVIDERS = ("openai", "anthropic")
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
        async with asyncio.timeout(20):
            while True:
                for reconciler in reconcilers:
                    await reconciler.poller.step()
                now = datetime.now(UTC)
                due = [shard for shard in await self.all() if shard["poll"]["next_at"] <= now]
                if not due and not any(r.readings.saturated() or r.looks.saturated() for r in reconcilers):
                    return
                await asyncio.sleep(0.01)


@pytest.fixture
async def clients(mongo: Mongo, sim: OwnSimulator) -> AsyncIterator[Clients]:
    await sim.configure(auto=False)
    providers = ProvidersSettings(
        openai=ProviderSettings(base_url=sim.openai_base_url),
        anthropic=AnthropicSettings(base_url=sim.anthropic_base_url),
    )
    settings = Settings(providers=providers, secret_key=SecretStr(SECRET))
    async with open_clients(mongo, settings, Keyring(settings.secret_key)) as opened:
        yield opened


@pytest.fixture
async def scene(mongo: Mongo, sim: OwnSimulator, clients: Clients, request: Any) -> Scene:
    opened = Scene(mongo, sim, clients, getattr(request, "param", "openai"))
    await opened.open()
    return opened


@pytest.fixture
async def make(mongo: Mongo, clients: Clients) -> AsyncIterator[Callable[..., Reconciler]]:
    made: list[Reconciler] = []

    def reconciler(owner: str = "one", **options: Any) -> Reconciler:
        made.append(Reconciler(mongo, clients, owner, **options))
        return made[-1]

    yield reconciler
    for each in made:
        await each.close()


both = pytest.mark.parametrize("scene", PROVIDERS, indirect=True)


async def test_list_of_three_pages_finds_all_and_missing_ones_get_their_own_looks(
    scene: Scene, make: Callable[..., Reconciler]
) -> None:
    ids = await scene.plant(205)
    await scene.sim.advance_clock(100)
    await scene.sim.configure(list_lag=50.0)
    missing = await scene.plant(4)

    await scene.settled(make())

    assert len(await scene.calls(LIST)) == 3
    assert {path.rpartition("/")[2] for path in await scene.calls(GET)} == set(missing)
    shards = await scene.all()
    assert len(shards) == len(ids) + 4
    assert all(shard["provider_status"] == "validating" and shard["poll"]["last_at"] for shard in shards)


@both
async def test_what_did_not_change_is_due_again_without_a_look_of_its_own(
    scene: Scene, make: Callable[..., Reconciler]
) -> None:
    ids = await scene.plant(4)
    reconciler = make()
    await scene.settled(reconciler)
    before = {shard["_id"]: shard for shard in await scene.all()}
    reconciler.changed.clear()
    await scene.due_again()
    await scene.sim.advance(ids[1], "completed" if scene.provider == "openai" else "ended")

    await scene.settled(reconciler)

    assert await scene.calls(GET) == []
    assert reconciler.changed == [], "what has ended is told of once its results are here"
    for shard in await scene.all():
        started = before[shard["_id"]]["poll"]["started_at"]
        if shard["provider_batch_id"] == ids[1]:
            assert shard["provider_status"] == "completed"
            assert shard["provider_counts"] == {"total": 2, "completed": 2, "failed": 0}
            assert reconciler.collected.ids == [shard["_id"]]
        else:
            assert shard["poll"]["started_at"] == started, "a claim of its own"
            assert shard["poll"]["last_at"] > started
            assert shard["poll"]["interval"] == 30.0
            later = shard["poll"]["next_at"] - shard["poll"]["last_at"]
            assert timedelta(seconds=27) <= later <= timedelta(seconds=30)


@both
async def test_few_due_shards_are_looked_at_one_by_one(scene: Scene, make: Callable[..., Reconciler]) -> None:
    await scene.plant(2)

    await scene.settled(make(threshold=3))

    assert await scene.calls(LIST) == []
    assert len(await scene.calls(GET)) == 2


async def test_two_reconcilers_read_a_list_once(scene: Scene, make: Callable[..., Reconciler]) -> None:
    await scene.plant(6)

    await scene.settled(make("one"), make("two"))

    assert len(await scene.calls(LIST)) == 1
    assert await scene.calls(GET) == []


async def test_list_whose_reader_died_is_read_by_another(
    scene: Scene, make: Callable[..., Reconciler], mongo: Mongo
) -> None:
    await scene.plant(5)
    dead = make("dead")
    assert await dead.listings.claim(scene.account_id, 5) is not None
    alive = make("alive")
    await alive.poller.step()
    assert await scene.calls(LIST) == await scene.calls(GET) == [], "what another reads is looked at as well"

    await mongo.collection("listings").update_one({}, [assign(raw={"lease.expires_at": expire_in(0)})])
    await scene.settled(alive)

    assert len(await scene.calls(LIST)) == 1


async def test_page_that_comes_late_changes_nothing_of_what_was_seen_since(
    scene: Scene, make: Callable[..., Reconciler], wait_for: Any
) -> None:
    ids = await scene.plant(4)
    reconciler = make()
    await scene.settled(reconciler)
    await scene.due_again()
    held = await scene.sim.fault(LIST["openai"], {"kind": "hold", "when": "after"})
    await reconciler.poller.step()

    async def waiting() -> bool:
        return bool((await scene.sim.fault_state(held))["waiting"])

    await wait_for(waiting, "a page on its way")
    await scene.sim.advance(ids[0], "completed")
    assert await RefreshStore(scene.mongo).ask(f"of-{ids[0]}", 0) is not None
    await reconciler.poller.step()

    async def seen() -> Any:
        shard = await scene.one(ids[0])
        return shard if shard["provider_status"] == "completed" else None

    before = await wait_for(seen, "a look of its own beside the reading")
    await scene.sim.release(held)
    await scene.settled(reconciler)

    after = await scene.one(ids[0])
    assert {**after["poll"], "last_at": None} == {**before["poll"], "last_at": None}
    assert after["provider_status"] == "completed"


async def test_who_is_asked_for_does_not_wait_for_a_list(
    scene: Scene, make: Callable[..., Reconciler]
) -> None:
    ids = await scene.plant(5)
    refreshing = RefreshStore(scene.mongo)
    asked = await refreshing.ask(f"of-{ids[3]}", 0)
    assert asked is not None
    reconciler = make()

    await scene.settled(reconciler)

    assert [path.rpartition("/")[2] for path in await scene.calls(GET)] == [ids[3]]
    assert await refreshing.is_answered(f"of-{ids[3]}", asked)


async def test_shard_to_be_cancelled_is_cancelled_whatever_a_list_shows(
    scene: Scene, make: Callable[..., Reconciler]
) -> None:
    ids = await scene.plant(5)
    await scene.shards.update_one({"provider_batch_id": ids[2]}, {"$set": {"plan_id": "plan"}})
    assert await EndingStore(scene.mongo).ask_cancel(f"of-{ids[2]}", "plan") == 1
    assert (await scene.one(ids[2]))["poll"]["next_at"] == URGENT
    await scene.shards.update_one({"provider_batch_id": ids[2]}, {"$set": {"poll.next_at": LONG_AGO}})

    await scene.settled(make())

    shard = await scene.one(ids[2])
    assert shard["state"] == "cancelling"
    assert len(await scene.calls(LIST)) == 1


@pytest.mark.parametrize(
    "action",
    [{"kind": "status", "status": 503}, {"kind": "status", "status": 429}, {"kind": "garbage"}],
    ids=str,
)
async def test_list_that_cannot_be_read_is_read_again_before_each_is_looked_at(
    scene: Scene, make: Callable[..., Reconciler], mongo: Mongo, action: dict[str, Any], wait_for: Any
) -> None:
    await scene.plant(4)
    await scene.sim.fault(LIST["openai"], action, times=None)
    reconciler = make()
    listings = mongo.collection("listings")
    for failures in (1, 2, 3):
        await reconciler.poller.step()

        async def failed(wanted: int = failures) -> bool:
            return await listings.find_one({"failures": wanted}) is not None

        await wait_for(failed, "a reading that failed")
        if failures < 3:
            await reconciler.poller.step()
            assert await scene.calls(GET) == []
        await listings.update_one({}, [assign(raw={"lease.expires_at": "$$NOW"})])

    await scene.settled(reconciler)

    assert len(await scene.calls(GET)) == 4
    assert all(shard["provider_status"] == "validating" for shard in await scene.all())


async def test_list_without_our_batches_is_left_alone(
    scene: Scene, make: Callable[..., Reconciler], mongo: Mongo
) -> None:
    await scene.sim.configure(list_lag=3600.0)
    await scene.plant(4)

    await scene.settled(make())

    assert len(await scene.calls(LIST)) == 1
    assert len(await scene.calls(GET)) == 4
    account = await mongo.collection("listings").find_one({})
    assert account is not None
    assert account["next_at"] > datetime.now(UTC)


async def test_counts_of_a_list_never_fall(scene: Scene, make: Callable[..., Reconciler]) -> None:
    ids = await scene.plant(3)
    more = {"total": 2, "completed": 2, "failed": 0}
    await scene.shards.update_one(
        {"provider_batch_id": ids[0]}, {"$set": {"provider_status": "in_progress", "provider_counts": more}}
    )

    await scene.settled(make())

    shard = await scene.one(ids[0])
    assert (shard["provider_status"], shard["provider_counts"]) == ("in_progress", more)


async def test_marks_let_a_list_be_read_in_stretches(
    scene: Scene, make: Callable[..., Reconciler], monkeypatch: pytest.MonkeyPatch, mongo: Mongo
) -> None:
    monkeypatch.setattr(listing, "_MARK_EVERY", 1)
    await scene.plant(205)
    reconciler = make()
    await scene.settled(reconciler)
    read = await mongo.collection("listings").find_one({})
    assert read is not None
    assert (read["pages"], len(read["marks"])) == (3, 2)
    await scene.plant(3)
    await scene.due_again()
    before = len(await scene.calls(LIST))

    await scene.settled(reconciler)

    assert await scene.calls(GET) == []
    assert len(await scene.calls(LIST)) - before in {4, 5}
    again = await mongo.collection("listings").find_one({})
    assert again is not None
    assert [mark["id"] for mark in read["marks"]] == [mark["id"] for mark in again["marks"]][-2:]


async def test_due_accounts_are_counted(scene: Scene, mongo: Mongo) -> None:
    await scene.shards.insert_many([scene._shard(f"batch_{n}") for n in range(300)])
    listings = ListingStore(mongo, "one", 30)
    assert await listings.due_accounts() == {scene.account_id: 300}
    assert await listings.due_accounts([scene.account_id]) == {}
    assert await listings.crowd(100) == (1, {scene.account_id: 300})
    await scene.shards.update_many({}, {"$set": {"poll.next_at": URGENT}})
    assert await listings.due_accounts() == {}


async def test_due_looks_read_no_more_shards_than_they_return(scene: Scene, mongo: Mongo) -> None:
    now = datetime.now(UTC)
    shards = [scene._shard(f"batch_{n}") for n in range(400)]
    for number, shard in enumerate(shards):
        shard["account_id"] = f"acc_{number % 2}"
        shard["poll"]["next_at"] = now + timedelta(seconds=number - 200)
    await scene.shards.insert_many(shards)
    due = PollStore(mongo, "one", 30).due_looks

    for leave_out in ([], ["acc_0"]):
        assert len(await due(8, leave_out)) == 8

    raw = mongo._database
    await raw.command("profile", 2)
    await due(8, ["acc_0"])
    await ListingStore(mongo, "one", 30).due_accounts(["acc_0"])
    await raw.command("profile", 0)
    seen = await raw["system.profile"].find({"ns": f"{raw.name}.shards"}).to_list(None)
    assert [row["docsExamined"] for row in seen] == [0, 8, 100]  # none urgent, eight looks, all that is due
    assert all("COLLSCAN" not in row["planSummary"] for row in seen)


@pytest.mark.parametrize(
    "poll",
    [
        {"started_at": datetime(2026, 1, 2, tzinfo=UTC)},
        {"claimed_until": datetime(2026, 1, 2, tzinfo=UTC)},
        {"next_at": URGENT},
    ],
    ids=["looked at since", "looked at now", "to be looked at by itself"],
)
async def test_page_speaks_for_no_shard_with_a_look_of_its_own(
    scene: Scene, mongo: Mongo, poll: dict[str, Any]
) -> None:
    shards = [scene._shard(f"batch_{n}") for n in range(2)]
    shards[1]["poll"] |= poll
    await scene.shards.insert_many(shards)
    listed_at = datetime(2026, 1, 1, tzinfo=UTC)

    await ListingStore(mongo, "one", 30).unchanged(
        scene.account_id, ["batch_0", "batch_1"], listed_at=listed_at, interval=30, delay=28
    )

    assert (await scene.one("batch_0"))["poll"]["next_at"] == listed_at + timedelta(seconds=28)
    assert (await scene.one("batch_1"))["poll"] == shards[1]["poll"]


async def test_listing_is_taken_by_one_and_only_when_it_is_worth_it(scene: Scene, mongo: Mongo) -> None:
    one, two = ListingStore(mongo, "one", 30), ListingStore(mongo, "two", 30)
    claim = await one.claim(scene.account_id, 5)
    assert claim is not None
    assert await two.claim(scene.account_id, 5) is None
    assert await two.held() == {scene.account_id}

    async with claim.hold() as hold:
        await hold.finish(7, [])

    assert await two.held() == set()
    assert await two.claim(scene.account_id, 6) is None
    assert await two.claim(scene.account_id, 7) is not None


async def test_reader_whose_lease_ran_out_ends_nothing(scene: Scene, mongo: Mongo) -> None:
    one, two = ListingStore(mongo, "one", 30), ListingStore(mongo, "two", 30)
    late = await one.claim(scene.account_id, 5)
    assert late is not None

    with pytest.raises(LeaseLost):
        async with late.hold() as hold:
            await mongo.collection("listings").update_one({}, [assign(raw={"lease.expires_at": "$$NOW"})])
            assert await two.claim(scene.account_id, 5) is not None
            await hold.finish(1, [])

    assert await two.held() == {scene.account_id}


async def test_unlisted_is_urgent_only_when_it_was_due(scene: Scene, mongo: Mongo) -> None:
    await scene.shards.insert_many([scene._shard(f"batch_{n}") for n in range(3)])
    now = datetime.now(UTC)
    await scene.shards.update_one(
        {"provider_batch_id": "batch_1"}, {"$set": {"poll.next_at": now + timedelta(hours=1)}}
    )

    assert await ListingStore(mongo, "one", 30).hurry_unseen(scene.account_id, now) == 2

    hurried = await scene.one("batch_0")
    assert (hurried["poll"]["next_at"], hurried["poll"]["due_at"]) == (URGENT, LONG_AGO)
    assert (await scene.one("batch_1"))["poll"]["next_at"] > now
