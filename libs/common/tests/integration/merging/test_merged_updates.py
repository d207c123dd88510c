"""Merged updates against a real replica set: each is done once, and its caller told whether it matched."""

import asyncio
from typing import Any

import pytest
from merged_calls import Commands, segment
from pymongo.errors import DuplicateKeyError, OperationFailure

from floopy_common.chassis import mongo as mongo_module
from floopy_common.chassis.lease import claim_stage, held, new_lease, release_stage
from floopy_common.chassis.mongo import Collection, Mongo, open_mongo
from floopy_common.chassis.pipelines import FREE_LEASE, assign
from floopy_common.settings import MongoSettings


async def test_updates_made_together_are_one_command_when_all_match(
    segments: Collection, commands: Commands
) -> None:
    await segments.insert_many([segment("a", no, state="open") for no in (1, 2, 3)])
    commands.names.clear()

    matched = await asyncio.gather(
        segments.update_one({"_id": "a:1", "state": "open"}, {"$set": {"state": "written"}}),
        segments.update_one({"_id": "a:2"}, {"$inc": {"resends": 1}}),
        segments.update_one({"_id": "a:3"}, [assign({"note": "$5 off"}, now=["at"])]),
    )

    assert matched == [1, 1, 1]
    assert commands.names == {"update": 1}
    found = {document["no"]: document for document in await segments.find_all({"batch_id": "a"})}
    assert found[1]["state"] == "written"
    assert found[2]["resends"] == 1
    assert found[3]["note"] == "$5 off"
    assert found[3]["at"] is not None


async def test_each_update_is_told_whether_its_own_matched(segments: Collection) -> None:
    await segments.insert_many([segment("a", no, state="open") for no in range(1, 9)])
    wanted = {1: "open", 2: "written", 3: "open", 4: "open", 9: "open"}

    matched = await asyncio.gather(
        *(
            segments.update_one({"_id": f"a:{no}", "state": state}, {"$set": {"state": "emitted"}})
            for no, state in wanted.items()
        )
    )

    assert matched == [1, 0, 1, 1, 0]


async def test_two_updates_of_one_document_both_happen_and_only_one_wins_a_condition(
    segments: Collection,
) -> None:
    await segments.insert_many([segment("a", no, state="open", resends=0) for no in (1, 2)])

    matched = await asyncio.gather(
        segments.update_one({"_id": "a:1", "state": "open"}, {"$set": {"state": "written"}}),
        segments.update_one({"_id": "a:1", "state": "open"}, {"$set": {"state": "balanced"}}),
        segments.update_one({"_id": "a:2"}, {"$inc": {"resends": 1}}),
        segments.update_one({"_id": "a:2"}, {"$inc": {"resends": 1}}),
    )

    assert matched == [1, 0, 1, 1]
    second = await segments.find_one({"_id": "a:2"})
    assert second is not None
    assert second["resends"] == 2


@pytest.mark.parametrize("durable", [True, False])
async def test_claims_made_together_give_each_document_to_one(segments: Collection, durable: bool) -> None:
    await segments.insert_many([segment("a", no) for no in range(1, 6)])
    held_already = new_lease("someone", 30.0)
    await segments.update_one({"_id": "a:4"}, [claim_stage(held_already, 30.0)])

    async def claim(no: int) -> str | None:
        lease = new_lease("worker", 30.0)
        found = await segments.find_and_update(
            {"_id": f"a:{no}", **FREE_LEASE}, [claim_stage(lease, 30.0)], durable=durable
        )
        assert found is None or found["lease"]["token"] == lease.token
        return None if found is None else lease.token

    tokens = await asyncio.gather(*(claim(no) for no in (1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 6)))

    won = [token for token in tokens if token is not None]
    assert tokens[:5].count(None) == 1
    assert tokens[3] is None
    assert tokens[5:] == [None] * 6
    assert len(set(won)) == 4


async def test_a_claimed_document_can_be_wanted_in_part(segments: Collection, commands: Commands) -> None:
    await segments.insert_many([segment("a", no, state="open") for no in (1, 2, 3)])
    commands.names.clear()

    found = await asyncio.gather(
        segments.find_and_update({"_id": "a:1"}, {"$set": {"state": "x"}}, projection={"no": 1}),
        segments.find_and_update({"_id": "a:2"}, {"$set": {"state": "y"}}, projection={"no": 0}),
        segments.find_and_update({"_id": "a:3"}, {"$set": {"state": "z"}}),
    )

    first, second, third = found
    assert first == {"_id": "a:1", "no": 1}
    assert second is not None
    assert second["state"] == "y"
    assert "no" not in second
    assert third == segment("a", 3, state="z")
    assert commands.names == {"update": 1, "find": 3}


async def test_who_lets_go_is_told_so_though_somebody_else_has_lost(segments: Collection) -> None:
    await segments.insert_many([segment("a", no) for no in (1, 2)])
    leases = {no: new_lease("worker", 30.0) for no in (1, 2)}
    for no, lease in leases.items():
        await segments.update_one({"_id": f"a:{no}"}, [claim_stage(lease, 30.0)])
    thief = new_lease("thief", 30.0)
    await segments.update_one({"_id": "a:2"}, [claim_stage(thief, 30.0)])

    released = await asyncio.gather(
        *(
            segments.update_one({"_id": f"a:{no}", **held(lease)}, [assign({"done": True}), release_stage()])
            for no, lease in leases.items()
        )
    )

    assert released == [1, 0]


async def test_a_write_that_fails_is_raised_to_its_caller_alone(mongo: Mongo) -> None:
    files = mongo.collection("segments")
    await files.insert_many([segment("a", no, resends="many" if no == 2 else 0) for no in (1, 2, 3)])

    results = await asyncio.gather(
        *(files.update_one({"_id": f"a:{no}"}, {"$inc": {"resends": 1}}) for no in (1, 2, 3, 4)),
        return_exceptions=True,
    )

    assert results[0] == 1

    assert results[2] == 1

    assert results[3] == 0
    assert isinstance(results[1], OperationFailure)
    assert not isinstance(results[1], DuplicateKeyError)


@pytest.fixture
def held_back(monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """(set once a first merged update has been sent, set to let it look what it matched)."""
    read_back, sent, go_on = mongo_module._read_back, asyncio.Event(), asyncio.Event()

    async def later(*arguments: Any) -> Any:
        if not sent.is_set():
            sent.set()
            await go_on.wait()
        return await read_back(*arguments)

    monkeypatch.setattr(mongo_module, "_read_back", later)
    return sent, go_on


async def test_who_was_overtaken_by_a_call_of_another_kind_is_told_that_it_matched(
    segments: Collection, held_back: tuple[asyncio.Event, asyncio.Event]
) -> None:
    await segments.insert_many([segment("a", no) for no in (1, 2)])
    sent, go_on = held_back
    first = asyncio.gather(
        segments.update_one({"_id": "a:1"}, {"$set": {"x": 1}}),
        segments.update_one({"_id": "gone"}, {"$set": {"x": 1}}),
    )
    await sent.wait()
    second = await asyncio.gather(
        segments.update_one({"_id": "a:1"}, {"$set": {"x": 2}}, durable=False),
        segments.update_one({"_id": "a:2"}, {"$set": {"x": 2}}, durable=False),
    )
    go_on.set()

    assert second == [1, 1]
    assert await first == [1, 0]


async def test_many_updates_of_one_document_all_happen_in_few_calls(
    segments: Collection, commands: Commands
) -> None:
    await segments.insert_new(segment("a", 1, resends=0))
    commands.names.clear()

    matched = await asyncio.gather(
        segments.update_one({"_id": "gone"}, {"$inc": {"resends": 1}}),
        *(segments.update_one({"_id": "a:1"}, {"$inc": {"resends": 1}}) for _ in range(40)),
        segments.find_and_update({"_id": "a:1", "resends": -1}, {"$inc": {"resends": 1}}),
    )

    assert matched == [0, *[1] * 40, None]
    assert commands.names["update"] <= 6
    found = await segments.find_one({"_id": "a:1"})
    assert found is not None
    assert found["resends"] == 40


@pytest.mark.parametrize("update", [{"$set": {"x": 1}}, [assign({"x": 1})]])
async def test_who_was_overtaken_by_another_process_is_told_that_it_matched(
    segments: Collection,
    mongo_uri: str,
    mongo_database: str,
    held_back: tuple[asyncio.Event, asyncio.Event],
    update: Any,
) -> None:
    await segments.insert_many([segment("a", no, notes=["kept"]) for no in (1, 2)])
    sent, go_on = held_back
    first = asyncio.gather(
        segments.update_one({"_id": "a:1"}, update), segments.update_one({"_id": "gone"}, update)
    )
    await sent.wait()
    async with open_mongo(MongoSettings(uri=mongo_uri, database=mongo_database), "other") as other:
        theirs = other.collection("segments")
        for note in range(5):
            await asyncio.gather(
                theirs.update_one({"_id": "a:1"}, {"$push": {"notes": note}}),
                theirs.update_one({"_id": "a:2"}, {"$push": {"notes": note}}),
            )
    go_on.set()

    assert await first == [1, 0]
    found = await segments.find_one({"_id": "a:1"})
    assert found is not None
    assert found["notes"] == ["kept", 0, 1, 2, 3, 4]


async def test_a_document_wanted_without_its_id_is_not_mixed_up(segments: Collection) -> None:
    await segments.insert_many([segment("a", no) for no in (1, 2)])

    found = await asyncio.gather(
        *(
            segments.find_and_update({"_id": f"a:{no}"}, {"$set": {"x": no}}, projection={"_id": 0, "x": 1})
            for no in (1, 2)
        )
    )

    assert found == [{"x": 1}, {"x": 2}]


async def test_what_fails_after_an_update_was_sent_does_not_send_it_again(
    segments: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await segments.insert_many([segment("a", no) for no in (1, 2)])

    async def broken(*_: Any) -> Any:
        raise ValueError("no document")

    monkeypatch.setattr(mongo_module, "_read_back", broken)
    told = await asyncio.gather(
        *(segments.update_one({"_id": f"a:{no}"}, {"$inc": {"n": 1}}) for no in (1, 2)),
        return_exceptions=True,
    )

    assert [type(each) for each in told] == [ValueError, ValueError]
    found = await segments.find_all({"batch_id": "a"})
    assert [document["n"] for document in found] == [1, 1]
