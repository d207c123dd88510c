"""What a person decides of shards whose tries came to nothing anybody knows of."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from floopy.cli import make_app
from floopy_common.chassis.mongo import Mongo
from floopy_common.stores.operating import OperatorStore
from floopy_common.stores.submitting import SubmitStore

SINCE = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def environment(mongo_uri: str, mongo_database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # no .floopy of the checkout
    monkeypatch.setenv("FLOOPY_MONGO__URI", mongo_uri)
    monkeypatch.setenv("FLOOPY_MONGO__DATABASE", mongo_database)


def shard(name: str, batch_id: str = "batch_1", reason: str = "operator") -> dict[str, Any]:
    return {
        "_id": name,
        "batch_id": batch_id,
        "org_id": "org_1",
        "provider": "openai",
        "account_id": "acc_1",
        "model": "gpt-4o-mini",
        "lines": 5,
        "state": "waiting",
        "waiting": {"reason": reason, "since": SINCE, "next_attempt_at": None, "backoff": None},
        "queued_since": SINCE,
        "created_at": SINCE,
        "attempts": [{"id": f"att_{n}", "phase": "abandoned"} for n in range(3)],
        "lease": {"token": None, "owner": None, "expires_at": SINCE, "attempt": 7},
    }


@pytest.fixture
async def planted(mongo: Mongo) -> Mongo:
    shards = [shard("s1"), shard("s2"), shard("s3", reason="rate_limited"), shard("s4", "batch_2")]
    await mongo.collection("shards").insert_many(shards)
    later = datetime(2099, 1, 1, tzinfo=UTC)
    await mongo.collection("batches").insert_many(
        [
            {"_id": name, "org_id": name, "status": "in_progress", "next_look_at": later}
            for name in ("batch_1", "batch_2")
        ]
    )
    return mongo


async def run(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, make_app(), ("batches", *arguments))


async def answer(*arguments: str) -> Any:
    result = await run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def states(mongo: Mongo) -> dict[str, str]:
    return {row["_id"]: row["state"] for row in await mongo.collection("shards").find_all({})}


async def test_only_shards_that_wait_for_a_person_are_listed(planted: Mongo) -> None:
    listed = await answer("held")

    assert [row["id"] for row in listed] == ["s1", "s2", "s4"]
    assert (listed[0]["batch_id"], listed[0]["lines"], listed[0]["attempts"]) == ("batch_1", 5, 3)
    assert [row["id"] for row in await answer("held", "--batch", "batch_2")] == ["s4"]


async def test_resumed_shard_is_submitted_once_more(planted: Mongo) -> None:
    assert await answer("resume", "batch_1", "--shard", "s2") == {"batch_id": "batch_1", "resumed": ["s2"]}

    assert await states(planted) == {"s1": "waiting", "s2": "planned", "s3": "waiting", "s4": "waiting"}
    await planted.collection("shards").delete_many({"_id": "s3"})
    submits = SubmitStore(planted, "test", 30)
    (due,) = await submits.due(1)
    claim = await submits.claim(due)
    assert claim is not None
    resumed = claim.shard
    assert (resumed["_id"], resumed["waiting"], resumed["queued_since"]) == ("s2", None, SINCE)
    assert claim.shard["lease"]["attempt"] == 1


async def test_shard_that_is_given_up_has_ended_and_its_batch_goes_on(planted: Mongo) -> None:
    """Its batch does not fail: that says that nothing ran, and leaves its lines without rows."""
    await answer("give-up", "batch_1")

    assert await states(planted) == {"s1": "settled", "s2": "settled", "s3": "waiting", "s4": "waiting"}
    ended = await planted.collection("shards").find_one({"_id": "s1"})
    assert ended is not None
    assert (ended["ended"], ended["refused"]["code"], ended["waiting"]) == (
        "refused",
        "submission_given_up",
        None,
    )
    assert ended["ended_at"] > SINCE
    batch = await planted.collection("batches").find_one({"_id": "batch_1"})
    assert batch is not None
    assert batch["next_look_at"] < SINCE


async def test_decision_counts_only_while_the_shard_waits_for_one(planted: Mongo) -> None:
    store = OperatorStore(planted)
    assert await store.resume("s1")

    assert not await store.resume("s1")
    assert not await store.give_up("s1")
    assert not await store.give_up("s3")
    assert (await run("resume", "batch_3")).exit_code == 1
    assert (await run("give-up", "batch_1", "--shard", "s3")).exit_code == 1
