"""The database module against a real replica set: literal values, leases, outbox, status moves."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import DuplicateKeyError
from typing_extensions import override

from floopy_common.chassis import lease as lease_module
from floopy_common.chassis.lease import LiveLease, claim_stage, held, new_lease, release_stage, renewing
from floopy_common.chassis.mongo import Mongo, ensure_indexes, open_mongo
from floopy_common.chassis.outbox import OutboxRelay, entry
from floopy_common.chassis.pipelines import FREE_LEASE, append, assign, due, expire_in
from floopy_common.collections import COLLECTIONS
from floopy_common.domain.batch import BatchStatus
from floopy_common.domain.errors import IllegalTransition, LeaseLost
from floopy_common.settings import MongoSettings
from floopy_common.stores.batches import BatchStore


@pytest.mark.parametrize("value", ["$5 off", "$$ROOT", {"$set": 1}, ["$a", None], {"a.b": "$x"}])
async def test_pipeline_updates_store_values_as_they_are(mongo: Mongo, value: object) -> None:
    orgs = mongo.collection("orgs")
    await orgs.insert_new({"_id": "org", "list": []})

    await orgs.update_one({"_id": "org"}, [assign({"metadata": value}, now=["at"]), append("list", value)])

    found = await orgs.find_one({"_id": "org"})
    assert found is not None
    assert found["metadata"] == value
    assert found["list"] == [value]
    assert abs((datetime.now(UTC) - found["at"]).total_seconds()) < 60


async def test_indexes_are_created_twice_without_complaint(mongo: Mongo) -> None:
    await ensure_indexes(mongo)

    meta = await mongo.collection("meta").find_one({"_id": "schema"})
    assert meta == {"_id": "schema", "version": 1}


async def test_an_index_that_was_declared_differently_is_made_anew(
    mongo_uri: str, bare_database: str
) -> None:
    with MongoClient[dict[str, Any]](mongo_uri) as client:
        requests = client[bare_database].requests
        index = next(index for index in COLLECTIONS["requests"].indexes if "session_id" in index.name)
        requests.create_index(list(index.keys), name=index.name)

        async with open_mongo(MongoSettings(uri=mongo_uri, database=bare_database), "test") as opened:
            await ensure_indexes(opened)

        found = requests.index_information()[index.name]
        assert found["partialFilterExpression"] == index.options["partialFilterExpression"]


@pytest.mark.parametrize("name", ["batches", "files", "uploads"])
async def test_a_retired_index_goes_and_what_was_made_under_it_stays(
    mongo_uri: str, bare_database: str, name: str
) -> None:
    retired = COLLECTIONS[name].retired
    where = {"idempotency_key": {"$type": "string"}}
    with MongoClient[dict[str, Any]](mongo_uri) as client:
        found = client[bare_database][name]
        keys = [("org_id", 1), ("idempotency_key", 1)]
        found.create_index(keys, name=retired[0], unique=True, partialFilterExpression=where)
        # files did not name their API key then: the two differ by their organisation alone
        found.insert_many([{"_id": org, "org_id": org, "idempotency_key": "k"} for org in ("one", "two")])

        async with open_mongo(MongoSettings(uri=mongo_uri, database=bare_database), "test") as opened:
            await ensure_indexes(opened)
            await ensure_indexes(opened)

        assert not set(retired) & set(found.index_information())
        row = {"org_id": "one", "api_key_id": "a", "idempotency_key": "k"}
        found.insert_many([row | {"_id": "a"}, row | {"_id": "b", "api_key_id": "b"}])
        with pytest.raises(DuplicateKeyError):
            found.insert_one(row | {"_id": "again"})
        assert found.count_documents({}) == 4


async def test_insert_missing_tells_what_was_there_already(mongo: Mongo) -> None:
    rows = mongo.collection("usage_ledger")
    await rows.insert_missing([{"_id": "b:1"}, {"_id": "b:3"}])

    assert await rows.insert_missing([{"_id": f"b:{n}"} for n in range(5)]) == {1, 3}
    assert await rows.count({}) == 5


async def test_a_lease_has_one_holder_until_it_expires(mongo: Mongo) -> None:
    shards = mongo.collection("shards")
    await shards.insert_new({"_id": "s", "lease": None})
    first, second = new_lease("one", 60), new_lease("two", 60)

    assert await shards.find_and_update({"_id": "s", **FREE_LEASE}, [claim_stage(first, 60)])
    assert await shards.find_and_update({"_id": "s", **FREE_LEASE}, [claim_stage(second, 60)]) is None
    await shards.update_one({"_id": "s"}, [assign(raw={"lease.expires_at": expire_in(0)})])
    taken = await shards.find_and_update({"_id": "s", **FREE_LEASE}, [claim_stage(second, 60)])

    assert taken is not None
    assert taken["lease"]["attempt"] == 2
    assert await shards.update_one({"_id": "s", **held(first)}, {"$set": {"stolen": True}}) == 0


async def test_renewing_outlives_the_ttl_and_reports_a_loss(mongo: Mongo) -> None:
    shards = mongo.collection("shards")
    await shards.insert_new({"_id": "s", "lease": None})
    lease = new_lease("one", 0.3)
    await shards.update_one({"_id": "s"}, [claim_stage(lease, 0.3)])
    first = await shards.find_one({"_id": "s"})
    assert first is not None

    with pytest.raises(LeaseLost):
        async with asyncio.timeout(10), renewing(shards, "s", lease, 0.3):
            while True:  # the heartbeat moves the expiry forward ...
                seen = await shards.find_one({"_id": "s"})
                assert seen is not None
                if seen["lease"]["expires_at"] > first["lease"]["expires_at"]:
                    break
            # ... until somebody else holds the document
            await shards.update_one({"_id": "s"}, {"$set": {"lease.token": "thief"}})
            await asyncio.Event().wait()


async def test_extending_is_never_shortened_by_a_heartbeat(mongo: Mongo) -> None:
    shards = mongo.collection("shards")
    await shards.insert_new({"_id": "s", "lease": None})
    lease = new_lease("one", 0.3)
    await shards.update_one({"_id": "s"}, [claim_stage(lease, 0.3)])

    async with renewing(shards, "s", lease, 0.3) as live:
        await live.extend(60)
        extended = await shards.find_one({"_id": "s"})
        await live.renew(0.3)

        assert await shards.find_one({"_id": "s"}) == extended
        assert 55 < live.seconds_left() <= 60


async def test_a_heartbeat_that_comes_after_the_release_reports_no_loss(
    mongo: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "LiveLease", _Watched)
    shards = mongo.collection("shards")
    await shards.insert_new({"_id": "s", "lease": None})
    lease = new_lease("one", 0.3)
    await shards.update_one({"_id": "s"}, [claim_stage(lease, 0.3)])

    async with asyncio.timeout(10), renewing(shards, "s", lease, 0.3) as live:
        assert isinstance(live, _Watched)
        with live.letting_go():
            assert await shards.update_one({"_id": "s", **live.held()}, [release_stage()]) == 1
            await live.beat(2)  # the answer to the release is still on its way
        await live.beat(2)  # the body has something left to do
        assert not live.lost


async def test_a_release_that_failed_leaves_the_heartbeat_its_say(mongo: Mongo) -> None:
    shards = mongo.collection("shards")
    await shards.insert_new({"_id": "s", "lease": {"token": "thief"}})

    with pytest.raises(LeaseLost):
        async with asyncio.timeout(10), renewing(shards, "s", new_lease("one", 0.3), 0.3) as live:
            with pytest.raises(ZeroDivisionError), live.letting_go():
                1 / 0  # noqa: B018 - the write fails
            await asyncio.Event().wait()


async def test_a_body_stopped_from_outside_is_stopped_though_its_lease_is_lost(mongo: Mongo) -> None:
    shards = mongo.collection("shards")
    await shards.insert_new({"_id": "s", "lease": {"token": "thief"}})
    lost = asyncio.Event()

    async def work() -> None:
        async with renewing(shards, "s", new_lease("one", 0.3), 0.3):
            try:
                await asyncio.Event().wait()
            finally:
                lost.set()
                await asyncio.Event().wait()  # what was begun takes its time to end

    task = asyncio.create_task(work())
    await asyncio.wait_for(lost.wait(), 10)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


class _Watched(LiveLease):
    """Tells of every heartbeat, each of which says whether the lease is lost."""

    beats: asyncio.Queue[bool]

    @override
    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "lost":
            self.__dict__.setdefault("beats", asyncio.Queue()).put_nowait(value)

    async def beat(self, times: int) -> None:
        while not self.beats.empty():
            self.beats.get_nowait()
        for _ in range(times):
            await self.beats.get()


async def test_looking_for_what_is_due_reads_nothing_that_is_not(mongo: Mongo) -> None:
    shards = mongo.collection("shards")
    for number in range(20):
        await shards.insert_new({"_id": f"s{number}", "state": "submitted", "lease": None})
        await shards.update_one({"_id": f"s{number}"}, [assign(raw={"poll.next_at": expire_in(60)})])

    criteria = {"state": {"$in": ["submitted", "cancelling"]}, "$and": [due("poll.next_at"), FREE_LEASE]}
    explained = await shards._raw.find(criteria, sort=[("poll.next_at", 1)]).explain()

    assert explained["executionStats"]["totalDocsExamined"] == 0


async def test_due_means_missing_or_past_by_the_servers_clock(mongo: Mongo) -> None:
    shards = mongo.collection("shards")
    for name, expression in {"past": expire_in(-5), "future": expire_in(60), "none": None}.items():
        await shards.insert_new({"_id": name})
        await shards.update_one({"_id": name}, [assign(raw={"poll.next_at": expression})])

    found = await shards.find_all(due("poll.next_at"))

    assert {document["_id"] for document in found} == {"past", "none"}


class _Sender:
    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, bytes]] = []
        self.failing = False

    async def send(self, topic: str, key: bytes, value: bytes) -> None:
        if self.failing:
            raise ConnectionError(topic)
        self.sent.append((topic, key, value))


async def test_one_event_that_cannot_be_sent_keeps_no_other_waiting(mongo: Mongo) -> None:
    batches = mongo.collection("batches")
    for name in ("a", "b"):
        first, second = (
            entry(event_id=f"{name}{n}", topic=f"{name}{n}", key=name, by="floopy-api", value=b"")
            for n in (1, 2)
        )
        await batches.insert_new({"_id": name, "outbox": [first, second]})

    class Choosy(_Sender):
        async def send(self, topic: str, key: bytes, value: bytes) -> None:
            if topic == "a2":
                raise ConnectionError(topic)
            await super().send(topic, key, value)

    sender = Choosy()
    with pytest.raises(ConnectionError):
        await OutboxRelay(batches, sender, by="floopy-api").step()

    left = {batch["_id"]: [e["id"] for e in batch["outbox"]] for batch in await batches.find_all({})}
    assert left == {"a": ["a2"], "b": []}
    sent = [topic for topic, _, _ in sender.sent]
    assert sorted(sent) == ["a1", "b1", "b2"]
    assert sent.index("b1") < sent.index("b2")


async def test_the_outbox_keeps_an_event_until_it_was_sent(mongo: Mongo) -> None:
    batches = mongo.collection("batches")
    pending = [
        entry(event_id="e1", topic="batch.created", key="b", by="floopy-api", value=b"1"),
        entry(event_id="e2", topic="batch.completed", key="b", by="floopy-reconciler", value=b"2"),
    ]
    await batches.insert_new({"_id": "b", "outbox": pending})
    sender = _Sender()
    relay = OutboxRelay(batches, sender, by="floopy-api")

    sender.failing = True
    with pytest.raises(ConnectionError):
        await relay.step()
    sender.failing = False
    await relay.step()
    await relay.step()

    assert sender.sent == [("batch.created", b"b", b"1")]
    left = await batches.find_one({"_id": "b"})
    assert left is not None
    assert [e["id"] for e in left["outbox"]] == ["e2"]


def _batch(**fields: Any) -> dict[str, Any]:
    return {
        "_id": "batch_1",
        "org_id": "org_1",
        "version": 1,
        "status": "validating",
        "provider": "openai",
        "endpoint": "/v1/chat/completions",
        "context": {"session_id": "$session"},
        "counts": {"total": 0, "completed": 0, "failed": 0},
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "plan": None,
        "outbox": [],
        **fields,
    }


async def test_of_two_moves_from_the_same_state_one_wins(mongo: Mongo) -> None:
    store = BatchStore(mongo)
    batch = _batch()
    await store.insert(dict(batch))
    now = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)

    moved = await store.transition(
        batch, BatchStatus.FAILED, now=now, by="floopy-submitter", event="batch.failed"
    )
    lost = await store.transition(batch, BatchStatus.CANCELLING, now=now, by="floopy-api")

    assert lost is None
    assert moved is not None
    assert (moved["status"], moved["version"], moved["failed_at"]) == ("failed", 2, now)
    assert [(e["topic"], e["by"]) for e in moved["outbox"]] == [("batch.failed", "floopy-submitter")]


async def test_a_move_with_a_lease_needs_the_lease(mongo: Mongo) -> None:
    store = BatchStore(mongo)
    batch = _batch(lease={"token": "mine"})
    await store.insert(dict(batch))
    now = datetime(2026, 1, 1, tzinfo=UTC)

    assert await store.transition(batch, BatchStatus.FAILED, now=now, by="x", lease_token="stale") is None
    assert await store.transition(batch, BatchStatus.FAILED, now=now, by="x", lease_token="mine")


async def test_a_move_off_the_lattice_is_refused_before_any_write(mongo: Mongo) -> None:
    with pytest.raises(IllegalTransition):
        await BatchStore(mongo).transition(
            _batch(status="completed"), BatchStatus.CANCELLING, now=datetime(2026, 1, 1, tzinfo=UTC), by="x"
        )


async def test_another_organisations_batch_is_unknown(mongo: Mongo) -> None:
    store = BatchStore(mongo)
    await store.insert(_batch())

    assert await store.get_owned("org_2", "batch_1") is None
    assert await store.get_owned("org_1", "batch_1") is not None


async def test_a_repeat_is_absorbed_once_per_retry_count(mongo: Mongo) -> None:
    store = BatchStore(mongo)
    since = datetime(2025, 12, 31, tzinfo=UTC)
    await store.insert(_batch(api_key_id="key_1", request_hash="h", nth=0, sendings=[0]))

    first = await store.absorb_retry("key_1", "h", since, 1)
    again = await store.absorb_retry("key_1", "h", since, 1)
    later = await store.absorb_retry("key_1", "h", since, 2)

    assert first is not None
    assert again is None
    assert later is not None
