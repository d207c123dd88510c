"""The real floopy-feedback on real brokers and MongoDB: one row per line, whatever is repeated or killed."""

import signal
from typing import Any

import msgspec
import pytest
from floopy_sinks.bench import Bench
from floopy_sinks.lines import COMPLETED, failed, make_segment
from waiting import eventually

from floopy_common.chassis.mongo import Document
from floopy_common.domain.ids import new_batch_id, receipt_id
from floopy_common.events.lines import Content, LineCompleted
from floopy_common.events.scores import LineScoredEvent, RoutingScoreEvent
from floopy_common.stores.blobs import BlobStore
from floopy_feedback.core.checks import SCORER_VERSION

SERVICE = "floopy-feedback"
SCORED = "batch.line.scored"
UPDATED = "routing.score.updated"


async def _batch(bench: Bench, batch_id: str, *, feedback: bool = True) -> None:
    context = {"plan": "pro" if feedback else "free", "feedback": feedback}
    batch: Document = {"_id": batch_id, "context": context, "audit": {"stage": "open"}, "outbox": []}
    await bench.mongo.collection("batches").insert_new(batch)


def _answer(line_no: int) -> bytes:
    """Every fifth was cut off by its length."""
    reason = "length" if line_no % 5 == 0 else "stop"
    message = {"role": "assistant", "content": f"Answer number {line_no}.", "refusal": None}
    return msgspec.json.encode({"choices": [{"index": 0, "message": message, "finish_reason": reason}]})


def _placed(bodies: list[bytes], wrapper: bytes) -> tuple[bytes, list[tuple[int, int]]]:
    """Bodies as they lie in a file, each in a line of its own, and where."""
    data, places = bytearray(), []
    for body in bodies:
        data += wrapper
        places.append((len(data), len(body)))
        data += body + b"}\n"
    return bytes(data), places


async def _with_content(bench: Bench, lines: list[LineCompleted]) -> list[LineCompleted]:
    """The same lines with bodies that can be read."""
    blobs = BlobStore(bench.mongo)
    prompt = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "Say something"}]})
    requests, asked = _placed([prompt] * len(lines), b'{"custom_id":"x","body":')
    responses, answered = _placed([_answer(line.line_no) for line in lines], b'{"response":{"body":')
    input_blob = (await blobs.put("upload", requests)).id
    output_blob = (await blobs.put("part", responses)).id
    return [
        msgspec.structs.replace(
            line,
            request=Content(input_blob, *asked[at], None),
            response=Content(output_blob, *answered[at], None) if line.response is not None else None,
        )
        for at, line in enumerate(lines)
    ]


async def _scored_segment(bench: Bench, lines: int = 100, **kind: Any) -> tuple[str, list[LineCompleted]]:
    batch_id = new_batch_id()
    await _batch(bench, batch_id)
    return batch_id, await _with_content(bench, make_segment(batch_id, lines, **kind))


def _group(bench: Bench) -> str:
    return f"{bench.settings.topic_prefix}{SERVICE}.batch.line.completed"


async def _events(bench: Bench, count: int) -> dict[str, LineScoredEvent]:
    """The scored events by id, once `count` different ones are there; repeats are equal byte for byte."""
    records = 0

    async def found() -> dict[str, bytes] | None:
        nonlocal records
        values: dict[str, bytes] = {}
        for record in await bench.read(SCORED, max(count, records)):
            event_id = msgspec.json.decode(record.value)["id"]
            assert values.setdefault(event_id, record.value) == record.value
            assert record.key.decode() == LineScoredEvent.model_validate_json(record.value).subject
        records += 1
        return values if len(values) == count else None

    values = await eventually(found, what=f"{count} scored events")
    return {event_id: LineScoredEvent.model_validate_json(value) for event_id, value in values.items()}


async def _standing(bench: Bench, model: str, lines: int) -> Document:
    async def found() -> Document | None:
        return await bench.mongo.collection("routing_scores").find_one(
            {"model": model, "lines": lines, "unpublished": False}
        )

    return await eventually(found, what=f"a published standing of {model} over {lines} lines")


async def test_a_segment_is_scored_told_of_and_confirmed(bench: Bench) -> None:
    batch_id, lines = await _scored_segment(bench)
    lines[6] = failed(lines[6])
    lines[7] = msgspec.structs.replace(lines[7], endpoint="/v1/embeddings")
    async with bench.service(SERVICE):
        where, _ = await bench.produce(lines)
        (receipt,) = await bench.receipts(1)
        events = await _events(bench, 100)

    rows = await bench.rows("scores")
    assert [row["_id"] for row in rows] == [line.line_id for line in lines]
    assert (receipt["_id"], receipt["lines"], receipt["parked"]) == (
        receipt_id(batch_id, 0, "feedback"),
        100,
        0,
    )
    assert rows[0] == {
        "_id": lines[0].line_id,
        "org_id": "org_1",
        "batch_id": batch_id,
        "segment": 0,
        "line_no": 1,
        "custom_id": "mine-1",
        "status": "scored",
        "scorer_version": SCORER_VERSION,
        "quality": 1.0,
        "checks": {
            name: {"ok": True, "detail": None} for name in ("finish", "answer", "refusal", "repetition")
        },
        "provider": "openai",
        "model": "gpt-4o-mini",
        "completed_at": COMPLETED,
    }
    assert rows[4]["checks"]["finish"] == {"ok": False, "detail": "length"}
    assert rows[4]["quality"] == 0.75
    assert [rows[at]["status"] for at in (6, 7)] == ["not_applicable", "not_applicable"]
    for row in rows:
        event = events[f"{row['_id']}:scored:{SCORER_VERSION}"]
        data = event.data.model_dump()
        assert data.pop("source") == "batch"
        assert {"_id": data.pop("line_id"), **data} == row
    assert {record.partition for record in await bench.read(SCORED, 100)} == {where}


async def test_a_segment_delivered_again_over_half_its_rows_changes_nothing(bench: Bench) -> None:
    _, lines = await _scored_segment(bench)
    collections = ("scores", "receipts", "score_rollups", "routing_scores")
    async with bench.service(SERVICE):
        await bench.produce(lines)
        await bench.receipts(1)
        await _standing(bench, "gpt-4o", 33)
        await _standing(bench, "gpt-4o-mini", 67)
        before = {name: await bench.rows(name) for name in collections}
        removed = {"_id": {"$in": [line.line_id for line in lines[::2]]}}
        await bench.mongo.collection("scores").delete_many(removed)

        where, last = await bench.produce(lines)
        await bench.caught_up(_group(bench), where, last)

        assert {name: await bench.rows(name) for name in collections} == before
        await _events(bench, 100)


async def test_a_repeat_is_told_of_once_more_only_where_there_is_no_receipt(bench: Bench) -> None:
    """A receipt is stored after the events, so a segment that has one has been told of."""
    _, lines = await _scored_segment(bench, 200)
    async with bench.service(SERVICE):
        await bench.produce(lines)
        await bench.receipts(1)
        where, last = await bench.produce(lines)
        await bench.caught_up(_group(bench), where, last)
        # what is told from now on shows it
        await bench.mongo.collection("scores").update_many({}, {"$set": {"quality": 0.125}})
        await bench.mongo.collection("receipts").delete_many({})
        where, last = await bench.produce(lines)
        await bench.caught_up(_group(bench), where, last)
        records = await bench.read(SCORED, 400)

    told = [LineScoredEvent.model_validate_json(record.value).data.quality for record in records]
    assert 0.125 not in told[:200]
    assert told[200:] == [0.125] * 200


async def test_an_organisation_without_feedback_gets_rows_that_say_so(bench: Bench) -> None:
    batch_id = new_batch_id()
    await _batch(bench, batch_id, feedback=False)
    async with bench.service(SERVICE):
        await bench.produce(make_segment(batch_id))
        (receipt,) = await bench.receipts(1)

    rows = await bench.rows("scores")
    assert {(row["status"], row["quality"]) for row in rows} == {("not_in_plan", None)}
    assert (len(rows), receipt["lines"]) == (100, 100)
    assert await bench.rows("score_rollups") == []


async def test_lines_whose_content_is_gone_or_damaged_get_rows_with_the_reason(bench: Bench) -> None:
    _, first = await _scored_segment(bench, segments=2)
    second = await _with_content(bench, make_segment(first[0].batch_id, no=1, segments=2))
    gone = second[0].response
    assert gone is not None
    await bench.mongo.collection("blobs").delete_one({"_id": gone.blob})
    beyond = msgspec.structs.replace(first[9].request, offset=10**9)
    first[9] = msgspec.structs.replace(first[9], request=beyond)
    astray = msgspec.structs.replace(first[20].request, length=first[20].request.length - 1)
    first[20] = msgspec.structs.replace(first[20], request=astray)
    async with bench.service(SERVICE):
        await bench.produce(first)
        await bench.produce(second)
        receipts = await bench.receipts(2)

    rows = await bench.rows("scores")
    reasons = {row["line_no"]: row["checks"]["content"]["detail"] for row in rows if row["status"] == "error"}
    missing = {line.line_no: "blob_missing" for line in second}
    assert reasons == {10: "blob_corrupt", 21: "request_unreadable", **missing}
    assert [receipt["parked"] for receipt in receipts] == [0, 0]


async def test_a_line_of_an_unknown_batch_still_gets_its_row(bench: Bench) -> None:
    async with bench.service(SERVICE):
        await bench.produce(make_segment(new_batch_id(), 10))
        await bench.receipts(1)

    assert {row["checks"]["content"]["detail"] for row in await bench.rows("scores")} == {"unknown_batch"}


async def test_standings_add_up_over_segments_and_each_version_is_told_once(bench: Bench) -> None:
    batch_id, first = await _scored_segment(bench, 60, segments=2)
    second = await _with_content(bench, make_segment(batch_id, 60, no=1, segments=2))
    async with bench.service(SERVICE):
        await bench.produce(first)
        await _standing(bench, "gpt-4o", 20)
        await _standing(bench, "gpt-4o-mini", 40)
        await bench.produce(second)
        standing = await _standing(bench, "gpt-4o", 40)
        await _standing(bench, "gpt-4o-mini", 80)
        records = await bench.read(UPDATED, 4)

    # every third line is gpt-4o's, every fifteenth of all lines is one of those that were cut off
    assert standing["quality"] == round((40 - 8 * 0.25) / 40, 4)
    assert (standing["segments"], standing["version"]) == (2, 2)
    told = [RoutingScoreEvent.model_validate_json(record.value) for record in records]
    assert {event.id for event in told} == {
        f"org_1:openai:{model}:{version}" for model in ("gpt-4o", "gpt-4o-mini") for version in (1, 2)
    }
    assert {record.key.decode() for record in records} == {"org_1:openai:gpt-4o", "org_1:openai:gpt-4o-mini"}


@pytest.mark.parametrize(
    "name", ["feedback.after_insert", "feedback.after_scored_events", "feedback.after_receipt"]
)
async def test_killed_between_any_two_steps_the_state_is_exact(bench: Bench, name: str) -> None:
    _, lines = await _scored_segment(bench)
    where, last = await bench.produce(lines)

    async with bench.service(SERVICE, FLOOPY_FAIL_AT=name) as process:
        assert await process.exited() == -signal.SIGKILL
    assert await bench.committed(_group(bench), "batch.line.completed", where) <= last
    assert len(await bench.rows("receipts")) == (name == "feedback.after_receipt")
    async with bench.service(SERVICE):
        await bench.caught_up(_group(bench), where, last)
        await _standing(bench, "gpt-4o", 33)

    rows = await bench.rows("scores")
    assert [row["_id"] for row in rows] == [line.line_id for line in lines]
    assert {row["status"] for row in rows} == {"scored"}
    assert len(await bench.rows("receipts")) == 1
    await _events(bench, 100)


async def test_a_line_it_cannot_store_is_parked_and_scored_when_replayed(bench: Bench) -> None:
    _, lines = await _scored_segment(bench)
    await bench.accept_only("scores", {"custom_id": {"$ne": "mine-42"}})
    async with bench.service(SERVICE, FLOOPY_FAIL_AT="feedback.after_dead_letter") as process:
        where, last = await bench.produce(lines)
        assert await process.exited() == -signal.SIGKILL

    async with bench.service(SERVICE):
        (receipt,) = await bench.receipts(1)
        assert (receipt["lines"], receipt["parked"]) == (100, 1)
        await bench.caught_up(_group(bench), where, last)
        assert f"{lines[41].line_id}:scored:{SCORER_VERSION}" not in await _events(bench, 99)
        await bench.accept_only("scores", {})

        assert (await bench.floopy("dlq", "replay", "--json"))[0] == 0

        await eventually(lambda: _unparked(bench), what="a receipt without parked lines")
        await _standing(bench, "gpt-4o", 33)
        await _events(bench, 100)


async def _unparked(bench: Bench) -> bool:
    (receipt,) = await bench.rows("receipts")
    return bool(receipt["parked"] == 0)
