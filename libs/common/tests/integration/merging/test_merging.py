"""Merged finds and inserts on a real replica set: each caller gets what the call alone would have given."""

import asyncio
from typing import Any

import pytest
from bson import Int64
from merged_calls import Commands, segment

from floopy_common.chassis.mongo import Collection, Document, Mongo


async def test_inserts_made_together_are_one_command_and_each_is_told_of_its_own(
    segments: Collection, commands: Commands
) -> None:
    await segments.insert_new(segment("a", 2))
    commands.names.clear()

    new = await asyncio.gather(*(segments.insert_new(segment("a", no)) for no in (1, 2, 3)))

    assert new == [True, False, True]
    assert commands.names == {"insert": 1}


async def test_finds_made_together_are_one_command_and_each_gets_its_own(
    segments: Collection, commands: Commands
) -> None:
    await segments.insert_many([segment(batch, no) for batch in "abc" for no in (3, 1, 2)])
    commands.names.clear()

    async def numbers(batch: str, plan: str) -> list[int]:
        found = await segments.find_all({"batch_id": batch, "plan_id": plan}, {"no": 1}, sort=[("no", 1)])
        return [document["no"] for document in found]

    found = await asyncio.gather(
        numbers("a", "plan_a"), numbers("b", "plan_b"), numbers("a", "plan_b"), numbers("c", "plan_c")
    )

    assert found == [[1, 2, 3], [1, 2, 3], [], [1, 2, 3]]
    assert commands.names == {"find": 1}


async def test_documents_by_id_found_together_belong_to_one_caller_each(
    segments: Collection, commands: Commands
) -> None:
    await segments.insert_many([segment("a", 1, counts={"completed": 1}), segment("a", 2)])
    commands.names.clear()

    first, again, other, none = await asyncio.gather(
        *(segments.find_one({"_id": name}) for name in ("a:1", "a:1", "a:2", "a:3"))
    )

    assert commands.names == {"find": 1}
    assert none is None
    assert first is not None
    assert again is not None
    assert other is not None
    assert (first["no"], again["no"], other["no"]) == (1, 1, 2)
    first["counts"]["completed"] = 7
    assert again["counts"] == {"completed": 1}


async def test_finds_by_an_element_of_an_array_are_told_apart(
    segments: Collection, mongo: Mongo, commands: Commands
) -> None:
    shards = mongo.collection("shards")
    scope = {"batch_id": "a", "plan_id": "p"}
    await shards.insert_many(
        [{"_id": "s1", **scope, "segments": [1, 2]}, {"_id": "s2", **scope, "segments": [2]}]
    )
    commands.names.clear()

    found = await asyncio.gather(
        *(shards.find_all({**scope, "segments": no}, {"_id": 1}, sort=[("_id", 1)]) for no in (1, 2, 3))
    )

    assert [[document["_id"] for document in each] for each in found] == [["s1"], ["s1", "s2"], []]
    assert commands.names == {"find": 1}


async def test_what_differs_in_more_than_values_is_not_merged(segments: Collection) -> None:
    await segments.insert_many([segment("a", no, ready=no > 1, state=f"s{no}") for no in (1, 2, 3)])

    by_flag, by_state, hidden, by_sort, limited = await asyncio.gather(
        segments.find_all({"batch_id": "a", "ready": True}, sort=[("no", 1)]),
        segments.find_all({"batch_id": "a", "state": {"$in": ["s1", "s2"]}}, sort=[("no", 1)]),
        segments.find_all({"batch_id": "a"}, {"batch_id": 0}, sort=[("no", 1)]),
        segments.find_all({"batch_id": "a"}, sort=[("no", -1)]),
        segments.find_all({"batch_id": "a"}, sort=[("no", 1)], limit=1),
    )

    assert [document["no"] for document in by_flag] == [2, 3]
    assert [document["no"] for document in by_state] == [1, 2]
    assert "batch_id" not in hidden[0]
    assert len(hidden) == 3
    assert [document["no"] for document in by_sort] == [3, 2, 1]
    assert [document["no"] for document in limited] == [1]


async def test_a_caller_who_gives_up_takes_nothing_from_the_others(segments: Collection) -> None:
    await segments.insert_many([segment("a", no) for no in (1, 2)])

    asked = asyncio.Event()

    async def ask(name: str) -> Document | None:
        asked.set()
        return await segments.find_one({"_id": name})

    second = asyncio.create_task(ask("a:2"))
    first = asyncio.create_task(ask("a:1"))
    await asked.wait()
    first.cancel()

    found = await second
    assert found is not None
    assert found["no"] == 2
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_what_cannot_be_encoded_fails_its_caller_alone(segments: Collection) -> None:
    await segments.insert_many([segment("a", no) for no in (1, 2, 3)])

    inserted = await asyncio.gather(
        *(segments.insert_new(segment("b", no, size=2**70 if no == 2 else 1)) for no in (1, 2, 3)),
        return_exceptions=True,
    )
    found = await asyncio.gather(
        *(segments.find_one({"_id": name}) for name in ("a:1", "\ud800", "a:2")), return_exceptions=True
    )
    changed = await asyncio.gather(
        *(
            segments.update_one({"_id": f"a:{no}"}, {"$inc": {"n": 2**70 if no == 2 else 1}})
            for no in (1, 2, 3)
        ),
        return_exceptions=True,
    )

    assert [inserted[0], inserted[2]] == [True, True]
    assert isinstance(inserted[1], OverflowError)
    assert [isinstance(each, dict) for each in found] == [True, False, True]
    assert [changed[0], changed[2]] == [1, 1]
    assert isinstance(changed[1], OverflowError)
    again = await segments.find_all({"batch_id": "a"}, {"n": 1}, sort=[("no", 1)])
    assert [document.get("n") for document in again] == [1, None, 1], "nobody's update came twice"


@pytest.mark.parametrize("kind", [Int64, float])
async def test_numbers_of_every_kind_are_told_apart_by_value(segments: Collection, kind: Any) -> None:
    await segments.insert_many([segment("a", no, size=kind(no), flag=True) for no in (1, 2)])

    found = await asyncio.gather(
        *(segments.find_all({"batch_id": "a", "size": size}, {"no": 1}) for size in (1, 2, 3))
    )

    assert [[document["no"] for document in each] for each in found] == [[1], [2], []]
