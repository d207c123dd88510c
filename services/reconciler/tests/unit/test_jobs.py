"""What the reconciler and the process that renders say to each other comes across whole, or not at all."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from bson.int64 import Int64
from hypothesis import given
from hypothesis import strategies as st

from floopy_reconciler.adapters.renderer import packed
from floopy_reconciler.core.jobs import Failed, decode_job, decode_reply, encode_job, encode_reply
from floopy_reconciler.core.render import Piece

_texts = st.lists(st.binary(max_size=20), max_size=4)


@given(_texts, _texts, st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=30)), max_size=5))
def test_a_piece_comes_across_with_each_part_in_one(
    output: list[bytes], error: list[bytes], events: list[tuple[bytes, bytes]]
) -> None:
    came = decode_reply(bytearray(encode_reply(Piece(output, error, events))))

    assert isinstance(came, Piece)
    assert [b"".join(output), b"".join(error)] == [b"".join(came.output), b"".join(came.error)]
    assert len(came.output) <= 1
    assert len(came.error) <= 1
    assert came.events == events
    assert all(type(text) is bytes for event in came.events for text in event)


def test_a_word_comes_across() -> None:
    assert decode_reply(encode_reply(Failed("Invalid", "line 3"))) == Failed("Invalid", "line 3")


def test_what_was_cut_is_no_reply() -> None:
    piece, word = encode_reply(Piece([b"ab"], [b"c"], [(b"k", b"value")])), encode_reply(Failed("", "why"))
    for whole in (piece, word):
        for end in range(len(whole)):
            with pytest.raises((ValueError, msgspec.DecodeError)):
                decode_reply(whole[:end])
    with pytest.raises(ValueError, match="that says it has"):
        decode_reply(piece + b"more")


def test_a_job_comes_across_with_the_numbers_and_times_the_database_gave(make: Any) -> None:
    case = make.case({1: make.input("user-1")}, [make.shard(lines=[1], results={1: make.success(1)})])
    job = case.job(make.stored)
    sources = [{**job.sources[0], "group": Int64(2**40)}]
    ranges = [{"blob": "in", "offset": Int64(2**33), "length": 7}]

    came = decode_job(
        encode_job(
            packed(replace(job, sources=sources, facts=replace(job.facts, input_ranges=ranges)), "/data")
        )
    )

    assert came.sources == sources
    assert came.facts == replace(job.facts, input_ranges=ranges)
    assert came.parts == job.parts
    assert (came.data, came.archives) == ("/data", [(None, None)])
