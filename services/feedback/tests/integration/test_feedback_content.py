"""Bodies are read in few, bounded reads, and damage costs no line its score but those it hit."""

from typing import Any

import msgspec
import pytest
from floopy_sinks.lines import make_segment
from typing_extensions import override

from floopy_common.chassis.mongo import Mongo
from floopy_common.events.lines import BlobRange, Content, LineCompleted
from floopy_common.stores.blobs import BlobStore, chunk_id
from floopy_feedback.core import content
from floopy_feedback.core.content import Exchange, read_exchanges
from floopy_feedback.core.exchange import Unreadable
from floopy_feedback.core.rows import RowMaker
from floopy_feedback.core.score import Score, Scorer

SIZE, GAP, CHUNK = 10, 3, 39


class Recorder(BlobStore):
    """The real store, which remembers what was read of it."""

    def __init__(self, mongo: Mongo) -> None:
        super().__init__(mongo, chunk_size=CHUNK)
        self.reads: list[tuple[str, int, int | None]] = []
        self.away: str | None = None

    @override
    async def read_bytes(self, blob_id: str, offset: int = 0, length: int | None = None) -> bytes:
        self.reads.append((blob_id, offset, length))
        if blob_id == self.away:
            raise ConnectionError("away")
        return await super().read_bytes(blob_id, offset, length)


@pytest.fixture
def blobs(mongo: Mongo) -> Recorder:
    return Recorder(mongo)


async def lines_in(blobs: Recorder, count: int) -> list[LineCompleted]:
    """Lines whose bodies are `SIZE` digits: n in the one blob, n + 1 in the other."""
    step = SIZE + GAP
    sides = [
        await blobs.put("part", b"".join(f"{n + more:0{SIZE}d}".encode() + b"-" * GAP for n in range(count)))
        for more in (0, 1)
    ]
    return [
        msgspec.structs.replace(
            line,
            request=Content(sides[0].id, n * step, SIZE, None),
            response=Content(sides[1].id, n * step, SIZE, None),
        )
        for n, line in enumerate(make_segment("batch_1", count))
    ]


def response_of(line: LineCompleted) -> Content:
    assert line.response is not None
    return line.response


async def read(blobs: Recorder, lines: list[LineCompleted]) -> list[Exchange]:
    return [exchange async for run in read_exchanges(blobs, lines) for exchange in run]


def numbers(exchanges: list[Exchange]) -> list[Any]:
    return [
        exchange.failure or (int(bytes(exchange.request or b"-1")), int(bytes(exchange.response)))
        for exchange in exchanges
    ]


async def test_a_contiguous_run_is_one_read_for_each_side(blobs: Recorder) -> None:
    lines = await lines_in(blobs, 100)

    assert numbers(await read(blobs, lines)) == [(n, n + 1) for n in range(100)]
    whole = 99 * (SIZE + GAP) + SIZE
    sides = (lines[0].request.blob, response_of(lines[0]).blob)
    assert sorted(blobs.reads) == sorted((blob, 0, whole) for blob in sides)


async def test_lines_left_out_in_between_do_not_split_a_run(blobs: Recorder) -> None:
    lines = await lines_in(blobs, 100)

    assert numbers(await read(blobs, lines[::2])) == [(n, n + 1) for n in range(0, 100, 2)]
    assert len(blobs.reads) == 2


async def test_a_read_is_bounded(blobs: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = await lines_in(blobs, 100)
    monkeypatch.setattr(content, "MAX_READ", 250)

    assert numbers(await read(blobs, lines)) == [(n, n + 1) for n in range(100)]
    assert max(length or 0 for _, _, length in blobs.reads) <= 250


async def test_a_wide_gap_is_not_read_along(blobs: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = await lines_in(blobs, 100)
    monkeypatch.setattr(content, "MAX_GAP", 20)

    await read(blobs, [*lines[:10], *lines[90:]])

    assert len(blobs.reads) == 4


async def test_lines_out_of_order_are_read_all_the_same(blobs: Recorder) -> None:
    lines = await lines_in(blobs, 6)

    assert numbers(await read(blobs, lines[::-1])) == [(n, n + 1) for n in range(5, -1, -1)]


async def test_a_body_over_the_limit_is_not_read(blobs: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = await lines_in(blobs, 3)
    monkeypatch.setattr(content, "MAX_READ", 25)
    lines[1] = msgspec.structs.replace(
        lines[1], response=msgspec.structs.replace(response_of(lines[1]), length=26)
    )

    assert numbers(await read(blobs, lines)) == [(0, 1), "too_large", (2, 3)]


async def test_inline_bodies_need_no_read(blobs: Recorder) -> None:
    lines = await lines_in(blobs, 3)
    inline = [
        msgspec.structs.replace(
            line,
            request=msgspec.structs.replace(line.request, body=msgspec.Raw(b"7")),
            response=Content("o", 0, 1, None, msgspec.Raw(b"8")),
        )
        for line in lines
    ]

    assert numbers(await read(blobs, inline)) == [(7, 8)] * 3
    assert blobs.reads == []


async def test_one_inline_side_leaves_the_other_to_be_read(blobs: Recorder) -> None:
    lines = await lines_in(blobs, 3)
    mixed = [
        msgspec.structs.replace(lines[0], request=Content("", 0, 1, None, msgspec.Raw(b"7"))),
        *lines[1:],
    ]

    assert numbers(await read(blobs, mixed)) == [(7, 1), (1, 2), (2, 3)]


async def test_a_body_that_crosses_two_blobs_is_put_together(blobs: Recorder) -> None:
    lines = await lines_in(blobs, 3)
    rest = await blobs.put("upload", b"xx99")
    crossing = msgspec.structs.replace(lines[1].request, continued=(BlobRange(rest.id, 2, 2),))
    lines[1] = msgspec.structs.replace(lines[1], request=crossing)

    assert numbers(await read(blobs, lines)) == [(0, 1), (199, 2), (2, 3)]


async def test_requests_that_constrain_nothing_are_not_read(blobs: Recorder) -> None:
    lines = await lines_in(blobs, 10)
    for n in (0, 1, 5, 9):
        free = msgspec.structs.replace(lines[n].request, unconstrained=True)
        lines[n] = msgspec.structs.replace(lines[n], request=free)

    exchanges = await read(blobs, lines)

    assert numbers(exchanges) == [(-1 if n in (0, 1, 5, 9) else n, n + 1) for n in range(10)]
    step = SIZE + GAP
    assert blobs.reads == [
        (lines[2].request.blob, 2 * step, 6 * step + SIZE),
        (response_of(lines[0]).blob, 0, 9 * step + SIZE),
    ], "the others are one read, from the first to the last of them"
    assert [exchange.request for exchange in exchanges[:2]] == [None, None]


async def test_the_requests_of_a_run_that_constrains_nothing_may_be_gone(blobs: Recorder) -> None:
    lines = [
        msgspec.structs.replace(line, request=Content("gone", 0, SIZE, None, unconstrained=True))
        for line in await lines_in(blobs, 3)
    ]

    assert numbers(await read(blobs, lines)) == [(-1, 1), (-1, 2), (-1, 3)]


async def test_a_missing_blob_costs_one_look(blobs: Recorder, mongo: Mongo) -> None:
    lines = await lines_in(blobs, 50)
    await mongo.collection("blobs").delete_one({"_id": response_of(lines[0]).blob})

    assert numbers(await read(blobs, lines)) == ["blob_missing"] * 50
    assert len(blobs.reads) == 2


async def test_damage_is_found_by_halving(blobs: Recorder, mongo: Mongo) -> None:
    lines = await lines_in(blobs, 64)
    # lines 15 to 17 lie in this chunk
    await mongo.collection("blob_chunks").delete_one({"_id": chunk_id(response_of(lines[0]).blob, 5)})

    expected = [(n, n + 1) if not 15 <= n <= 17 else "blob_corrupt" for n in range(64)]
    assert numbers(await read(blobs, lines)) == expected
    assert len(blobs.reads) < len(lines)


async def test_a_database_that_does_not_answer_is_not_the_lines_fault(blobs: Recorder, mongo: Mongo) -> None:
    lines = await lines_in(blobs, 3)
    await mongo.collection("blobs").delete_one({"_id": lines[0].request.blob})
    blobs.away = response_of(lines[0]).blob

    with pytest.raises(ConnectionError):
        await read(blobs, lines)


async def test_a_scorer_that_fails_costs_its_line_the_score_and_no_more(blobs: Recorder) -> None:
    class Broken(Scorer):
        @override
        def score(self, request_body: bytes | msgspec.Raw, response_body: bytes | msgspec.Raw) -> Score:
            if response_body == b"0000000001":
                raise KeyError("a fault of ours")
            raise Unreadable("no_json")

    class InPlan:
        async def get_many(self, batch_ids: set[str]) -> dict[str, dict[str, Any]]:
            return {batch_id: {"feedback": True} for batch_id in batch_ids}

    lines = await lines_in(blobs, 2)

    maker = RowMaker(contexts=InPlan(), blobs=blobs, scorer=Broken())
    rows = [row async for run in maker.rows(lines) for row in run]

    assert [row["status"] for row in rows] == ["error", "error"]
    assert [row["checks"]["content"]["detail"] for row in rows] == ["scorer_failed", "no_json"]
