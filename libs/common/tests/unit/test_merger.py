"""Who asks along with others is told in time, and each of what failed by an exception of its own."""

import asyncio
from typing import Any

import pytest
from pymongo.errors import BulkWriteError, NetworkTimeout, PyMongoError, ServerSelectionTimeoutError

from floopy_common.chassis.merging import Merger

FAILURES = [
    NetworkTimeout("timed out", ["where"]),
    ServerSelectionTimeoutError("nobody", ["where"]),
    BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 64}]}),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_each_gets_a_failure_of_its_own_that_says_the_same(failure: PyMongoError) -> None:
    merger: Merger[int, int] = Merger(PyMongoError)

    async def fail(questions: list[int]) -> list[int]:
        raise failure

    asked = (merger.ask(None, number, fail) for number in range(3))
    failed: list[Any] = await asyncio.gather(*asked, return_exceptions=True)

    assert len({id(error) for error in (*failed, failure)}) == 4
    for error in failed:
        assert (type(error), str(error), error.__cause__) == (type(failure), str(failure), failure)
        assert vars(error) == vars(failure)


async def test_a_failure_that_only_one_is_told_of_stays_as_it_is() -> None:
    merger: Merger[int, int] = Merger(PyMongoError)
    only = NetworkTimeout("timed out")

    async def answer(questions: list[int]) -> list[int | Exception]:
        return [only if question else 0 for question in questions]

    failed = await asyncio.gather(*(merger.ask(None, n, answer) for n in (0, 1)), return_exceptions=True)

    assert failed == [0, only]


async def test_nobody_waits_for_ever_for_a_call_that_hangs_or_for_what_is_before_his() -> None:
    merger: Merger[int, int] = Merger(PyMongoError, within=0.05, late=NetworkTimeout)
    calls: list[list[int]] = []
    answered = asyncio.Event()

    async def hang(questions: list[int]) -> list[int]:
        calls.append(questions)
        await answered.wait()
        return questions

    asked = (merger.ask(None, number, hang, subject="one") for number in range(20))
    failed = await asyncio.gather(*asked, return_exceptions=True)
    answered.set()

    assert [type(error) for error in failed] == [NetworkTimeout] * 20
    assert [len(call) for call in calls] == [8, 8]
    assert await merger.ask(None, 7, hang, subject="one") == 7
    assert [len(call) for call in calls] == [8, 8, 1], "nobody is asked for who has given up"
