"""Which shard answers which line: property tests against a model that is written the other way round."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floopy_common.domain.index import FLAG_OK, InputEntry, ResultEntry
from floopy_reconciler.core.sources import Choice, Uncovered, choose, sources_of

OK, FAILED, NEVER_RAN, SILENT = "ok", "failed", "never ran", "silent"


def make_shard(no: int, depth: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "_id": f"s{no}.{depth}",
        "no": no,
        "depth": depth,
        "group": 0,
        "provider": "openai",
        "ranges": [[1, 100]],
        "state": "settled",
        "ended": "finished",
        "ended_at": None,
        **changes,
    }


def make_entry(line: int, said: str) -> ResultEntry:
    return ResultEntry(line, 0, 1 if said != NEVER_RAN else 2, 0, FLAG_OK if said == OK else 0)


def pick(said_by_depth: list[str]) -> int:
    """The depth that speaks for a line, given what each depth said of it, primary first."""
    sources = sources_of([make_shard(0, depth) for depth in range(len(said_by_depth))], 1, 1)
    answers = [{} if said == SILENT else {1: make_entry(1, said)} for said in reversed(said_by_depth)]
    choices = choose([InputEntry(1, 0, 9, 0)], sources, answers, lambda _, entry: entry.length == 2)
    choice = choices[0]
    assert (choice.entry is None) == all(said == SILENT for said in said_by_depth)
    return len(said_by_depth) - 1 - choice.source


@pytest.mark.parametrize(
    ("said", "depth"),
    [
        ([OK], 0),
        ([FAILED, OK], 1),
        ([FAILED, FAILED], 1),
        ([FAILED, SILENT], 0),
        ([FAILED, NEVER_RAN], 0),
        ([FAILED, FAILED, NEVER_RAN], 1),
        ([OK, FAILED], 0),
        ([FAILED, OK, FAILED], 1),
        ([NEVER_RAN, SILENT], 0),
        ([NEVER_RAN, NEVER_RAN], 1),
        ([SILENT, SILENT], 1),
    ],
)
def test_the_deepest_retry_that_ran_speaks_and_no_failure_replaces_a_success(
    said: list[str], depth: int
) -> None:
    assert pick(said) == depth


@given(st.lists(st.sampled_from([OK, FAILED, NEVER_RAN, SILENT]), min_size=1, max_size=4))
def test_what_speaks_is_never_worse_than_anything_else_that_was_said(said: list[str]) -> None:
    rank = {OK: 3, FAILED: 2, NEVER_RAN: 1, SILENT: 0}
    depth = pick(said)

    assert rank[said[depth]] == max(rank[one] for one in said)
    assert all(rank[deeper] < rank[said[depth]] for deeper in said[depth + 1 :])


def test_groups_and_ranges_keep_lines_apart() -> None:
    shards = [make_shard(0, ranges=[[1, 2], [4, 9]]), make_shard(1, group=1, ranges=[[1, 9]])]
    lines = [InputEntry(n, 0, 9, n % 2) for n in (1, 2, 4, 5)]

    choices = choose(lines, sources_of(shards, 1, 5), [{}, {}], lambda *_: False)

    assert [choice.source for choice in choices] == [1, 0, 0, 1]


def test_a_line_without_a_shard_is_uncovered() -> None:
    sources = sources_of([make_shard(0, ranges=[[1, 1]])], 1, 2)
    with pytest.raises(Uncovered):
        choose([InputEntry(2, 0, 9, 0)], sources, [{}], lambda *_: False)


def test_a_shard_under_way_is_no_source() -> None:
    with pytest.raises(Uncovered):
        sources_of([make_shard(0, state="downloading")], 1, 2)


def test_sources_are_cut_to_the_segment_and_come_in_order_of_precedence() -> None:
    refused = {"code": "c", "message": "m", "errors": [{"line": 3}, {"line": 30}, {"line": None}]}
    shards = [
        make_shard(0, ranges=[[1, 4], [6, 20], [30, 40]], refused=refused),
        make_shard(1),
        make_shard(0, 1),
    ]

    sources = sources_of(shards, 3, 10)

    assert [source["shard"] for source in sources] == ["s0.1", "s0.0", "s1.0"]
    assert sources[1]["ranges"] == [[3, 4], [6, 10]]
    assert sources[1]["refused"]["errors"] == [{"line": 3}]


def test_a_choice_names_its_entry() -> None:
    entry = make_entry(1, OK)
    choices = choose(
        [InputEntry(1, 0, 9, 0)], sources_of([make_shard(0)], 1, 1), [{1: entry}], lambda *_: False
    )
    assert choices == [Choice(0, entry)]
