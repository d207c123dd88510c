"""Organisations take turns, however many batches each of them has waiting."""

from dataclasses import dataclass

from floopy_submitter.core.planning import in_turns


@dataclass(frozen=True)
class Queue:
    org_id: str
    batch_ids: list[str]
    large: bool = False


def test_each_organisations_first_comes_before_anybodys_second() -> None:
    queues = [Queue("b", ["b1", "b2", "b3"]), Queue("c", ["c1"]), Queue("a", ["a1", "a2"])]

    assert [batch_id for _, batch_id in in_turns(queues, 5)] == ["b1", "c1", "a1", "b2", "a2"]
    assert in_turns(queues, 2) == [("b", "b1"), ("c", "c1")]
    assert [batch_id for _, batch_id in in_turns(queues, 9)] == ["b1", "c1", "a1", "b2", "a2", "b3"]


def test_nothing_waits_or_nothing_fits() -> None:
    assert in_turns([], 3) == []
    assert in_turns([Queue("a", ["a1"])], 0) == []
