"""Writing and emitting segments against a real database and real brokers."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from typing import Any

import pytest
from waiting import eventually

from floopy_common.chassis.producer import Producer
from floopy_common.domain.segment import SegmentState
from floopy_common.settings import KafkaSettings
from floopy_common.stores.segments import SegmentStore
from floopy_reconciler.adapters.renderer import RenderProcess
from floopy_reconciler.core.jobs import Job, Take
from floopy_reconciler.core.materials import Materials
from floopy_reconciler.core.parts import NewPart
from floopy_reconciler.core.render import Piece, Renderer, Tally
from floopy_reconciler.core.rendering import Backlog, Room
from floopy_reconciler.errors import RendererLost

from .bench import check_events

FAILPOINTS = [
    "segment.after_claim",
    "segment.after_output_part",
    "segment.after_error_part",
    "segment.after_manifest",
    "segment.after_first_send",
    "segment.after_send",
    "segment.after_emitted",
]


async def test_a_segment_is_written_and_its_events_are_on_their_partition(delivery: Any) -> None:
    batch = await delivery.plan(lines=20, segment_lines=10)

    segments = await delivery.until(delivery.worker(), batch, "emitted")

    output, error = await delivery.part(batch, "output"), await delivery.part(batch, "error")
    names = [json.loads(line)["custom_id"] for line in output.splitlines()]
    assert names == [f"user-{n}" for n in range(1, 21) if n % 5]
    assert [json.loads(line)["custom_id"] for line in error.splitlines()] == [
        f"user-{n}" for n in (5, 10, 15, 20)
    ]
    for segment in segments:
        assert segment["counts"] == {"completed": 8, "failed": 2}
        assert segment["usage"]["total_tokens"] == 8 * 14
        assert segment["manifest"]["output"]["lines"] == 8
        await check_events(delivery, batch, segment)
    assert delivery.changed.count(batch["_id"]) == 4


async def test_a_part_without_lines_leaves_no_blob(delivery: Any) -> None:
    batch = await delivery.plan(lines=4, segment_lines=4)

    (segment,) = await delivery.until(delivery.worker(), batch, "emitted")

    assert segment["manifest"]["error"] is None
    assert await delivery.mongo.collection("blobs").count({"kind": "part"}) == 1


async def test_a_retry_answers_in_the_place_of_its_parent(delivery: Any) -> None:
    batch = await delivery.plan(lines=10, segment_lines=10)
    await delivery.settle(batch, {5: False, 10: True}, depth=1)

    (segment,) = await delivery.until(delivery.worker(), batch, "emitted")

    assert segment["counts"] == {"completed": 9, "failed": 1}
    assert [source["shard"].endswith(".r") for source in segment["manifest"]["sources"]] == [True, False]
    assert b"Answer 5 at 1" in await delivery.part(batch, "output")


@pytest.mark.parametrize("name", FAILPOINTS)
async def test_whoever_comes_after_a_crash_finishes_with_the_same_bytes(
    delivery: Any, killed: type[BaseException], name: str
) -> None:
    batch = await delivery.plan(lines=10, segment_lines=10)
    seen: list[str] = []

    def hit(passed: str) -> None:
        seen.append(passed)
        if passed == name:
            raise killed(name)

    store = SegmentStore(delivery.mongo, "victim", 1.0)
    claim = await store.claim([SegmentState.OPEN], "")
    assert claim is not None
    with pytest.raises(killed):
        await delivery.worker(hit=hit, owner="victim").carry_out(claim)
    assert seen[-1] == name
    before = (await delivery.segments(batch))[0]

    (segment,) = await delivery.until(delivery.worker(owner="heir"), batch, "emitted")

    assert (before["manifest"] or segment["manifest"]) == segment["manifest"]
    await check_events(delivery, batch, segment)
    assert len((await delivery.part(batch, "output")).splitlines()) == 8


async def test_another_emission_has_the_same_events(delivery: Any) -> None:
    batch = await delivery.plan(lines=10, segment_lines=10)
    (first,) = await delivery.emitted(batch)
    await delivery.mongo.collection("segments").update_one(
        {"_id": first["_id"]}, {"$set": {"state": "written"}}
    )

    (again,) = await delivery.until(delivery.worker(owner="second"), batch, "emitted")

    assert again["manifest"] == first["manifest"]
    assert again["emitted"]["times"] == 2
    assert again["emitted"]["first_offset"] > first["emitted"]["last_offset"]
    places = [segment["emitted"] for segment in (first, again)]
    values = [await delivery.read(p["partition"], p["first_offset"], p["last_offset"]) for p in places]
    assert values[0] == values[1]
    assert "emitted 10 again" in delivery.reports.seen


async def test_events_too_many_to_keep_are_rendered_once_more(
    delivery: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("floopy_reconciler.core.segments._KEPT_BYTES", 1_000)
    batch = await delivery.plan(lines=20, segment_lines=20)
    (segment,) = await delivery.until(delivery.worker(), batch, "emitted")
    await check_events(delivery, batch, segment)


async def test_large_segments_render_one_at_a_time(delivery: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that take turns would both be ready to be sent, and to be read, at the same time."""
    turns: list[int] = []
    read, all_read = 0, asyncio.Event()

    @asynccontextmanager
    async def counted(materials: Materials, *arguments: Any) -> AsyncIterator[Any]:
        nonlocal read
        async with opened(materials, *arguments) as material:
            read += 1
            if read == 3:
                all_read.set()
            yield material

    async def write(part: NewPart, pieces: Sequence[bytes]) -> None:
        await all_read.wait()
        await written(part, pieces)

    def pieces(renderer: Renderer) -> Iterator[Piece]:
        for piece in whole(renderer):
            turns.append(renderer._facts.segment.no)
            yield piece

    opened, written, whole = Materials.opened, NewPart.write, Renderer.pieces
    monkeypatch.setattr(Materials, "opened", counted)
    monkeypatch.setattr(NewPart, "write", write)
    monkeypatch.setattr(Renderer, "pieces", pieces)
    batch = await delivery.plan(lines=900, segment_lines=300)

    await delivery.until(delivery.worker(concurrency=3), batch, "emitted")

    assert sorted(turns) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [no for no, _ in groupby(turns)] == sorted(set(turns), key=turns.index)


@pytest.mark.parametrize("room", [10**6, 1_000], ids=["kept", "rendered once more"])
async def test_large_segments_are_rendered_by_a_process_of_their_own(
    delivery: Any, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr("floopy_reconciler.core.segments._KEPT_BYTES", room)
    batch = await delivery.plan(lines=900, segment_lines=300)
    renderer = RenderProcess()
    try:
        segments = await delivery.until(delivery.worker(concurrency=3, renderer=renderer), batch, "emitted")
        assert renderer.pid is not None
    finally:
        await renderer.close()
    for segment in segments:
        await check_events(delivery, batch, segment)


async def test_a_segment_whose_renderer_is_lost_is_claimed_again(delivery: Any) -> None:
    """It may be the segment's own doing, so the one who held it counts as dead."""

    class Lost:
        async def render(self, job: Job, take: Take) -> Tally:
            raise RendererLost("gone")

    batch = await delivery.plan(lines=300, segment_lines=300)
    worker = delivery.worker(renderer=Lost())

    async def lost() -> bool:
        await worker.step()
        (segment,) = await delivery.segments(batch)
        return (segment["lease"] or {}).get("attempt") == 2

    await eventually(lost, timeout=20, what="a second try")
    (segment,) = await delivery.segments(batch)
    assert segment["lease"]["deaths"] == 1

    (segment,) = await delivery.until(delivery.worker(owner="second"), batch, "emitted")
    await check_events(delivery, batch, segment)


@pytest.mark.parametrize(("room", "sent_while_held"), [(10**6, False), (1_000, True)])
async def test_stored_bytes_are_let_go_before_events_are_sent(
    delivery: Any, monkeypatch: pytest.MonkeyPatch, room: int, sent_while_held: bool
) -> None:
    """Unless events that had no room are to be rendered once more."""
    monkeypatch.setattr("floopy_reconciler.core.segments._KEPT_BYTES", room)
    held, seen = 0, set()
    opened = Materials.opened

    @asynccontextmanager
    async def counted(materials: Materials, *arguments: Any) -> AsyncIterator[Any]:
        nonlocal held
        async with opened(materials, *arguments) as material:
            held += 1
            try:
                yield material
            finally:
                held -= 1

    def hit(name: str) -> None:
        if name == "segment.after_send":
            seen.add(held > 0)

    monkeypatch.setattr(Materials, "opened", counted)
    batch = await delivery.plan(lines=20, segment_lines=20)

    await delivery.until(delivery.worker(hit=hit), batch, "emitted")

    assert seen == {sent_while_held}


async def test_what_no_longer_renders_to_its_stored_bytes_is_not_emitted(delivery: Any) -> None:
    batch = await delivery.plan(lines=10, segment_lines=10)
    (segment,) = await delivery.emitted(batch)
    changes = {"state": "written", "manifest.output.sha256": "0" * 64}
    await delivery.mongo.collection("segments").update_one({"_id": segment["_id"]}, {"$set": changes})
    worker = delivery.worker(owner="second")

    async def reported() -> bool:
        await worker.step()
        return "differs" in delivery.reports.seen

    await eventually(reported, timeout=20, what="a difference")
    (after,) = await delivery.segments(batch)
    assert (after["state"], after["emitted"]) == ("written", segment["emitted"])


async def test_an_archive_that_is_gone_is_reported_and_tried_again(delivery: Any) -> None:
    batch = await delivery.plan(lines=10, segment_lines=10)
    blobs = delivery.mongo.collection("blobs")
    archive = await blobs.find_one({"kind": "archive"})
    await blobs.delete_one({"_id": archive["_id"]})
    worker = delivery.worker()

    async def reported() -> bool:
        await worker.step()
        return "stuck" in delivery.reports.seen

    await eventually(reported, timeout=20, what="a stuck segment")
    await blobs.insert_new(archive)
    await delivery.until(worker, batch, "emitted")


async def test_a_line_whose_shard_is_under_way_is_not_written(delivery: Any) -> None:
    batch = await delivery.plan(lines=10, segment_lines=10)
    await delivery.mongo.collection("shards").update_one(
        {"batch_id": batch["_id"]}, {"$set": {"state": "submitted"}}
    )
    worker = delivery.worker()

    async def reported() -> bool:
        await worker.step()
        return "stuck" in delivery.reports.seen

    await eventually(reported, timeout=20, what="a stuck segment")
    assert await delivery.in_state(batch, "open")


async def test_events_of_all_segments_in_hand_have_one_room() -> None:
    room = Room(100)
    with Backlog(room) as first, Backlog(room) as second:
        first.add([(b"k", b"x" * 59)])
        second.add([(b"k", b"x" * 29)])
        second.add([(b"k", b"x" * 59)])
        first.add([(b"k", b"x" * 29)])

        assert second.records is None
        assert first.records is not None
        assert len(first.records) == 2
    assert room.left == 100


async def test_segments_are_written_while_the_broker_is_away_and_emitted_once_it_is_back(
    delivery: Any,
) -> None:
    away = Producer(KafkaSettings(bootstrap_servers="127.0.0.1:1", send_timeout=0.3))
    batch = await delivery.plan(lines=40, segment_lines=4)

    await delivery.until(delivery.worker(producer=away, owner="first"), batch, "written")

    assert await delivery.part(batch, "output")
    segments = await delivery.until(delivery.worker(owner="second"), batch, "emitted")
    for segment in segments:
        await check_events(delivery, batch, segment)
    await away.close()
