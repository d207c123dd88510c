"""Standings of models: whatever is repeated, reordered or done twice at once, they say what the rows say."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from typing_extensions import override

from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.domain.ids import line_id
from floopy_common.events.lines import SegmentRef
from floopy_common.events.scores import RoutingScore, RoutingScoreEvent
from floopy_common.stores import routing_scores
from floopy_common.stores.contexts import ContextStore
from floopy_common.stores.routing_scores import Key, RoutingScoreStore, ScoreTally
from floopy_common.stores.segment_runs import SegmentRun
from floopy_feedback.core.standings import StandingKeeper, standing_of

NOW = datetime(2026, 11, 24, 14, tzinfo=UTC)
KEY = ("org_1", "openai", "gpt-4o")


class Topic:
    """What was sent, and in between whatever a test wants to happen."""

    def __init__(self) -> None:
        self.values: list[RoutingScore] = []

    async def send(self, topic: str, key: bytes, value: bytes) -> None:
        assert topic == "routing.score.updated"
        self.values.append(RoutingScoreEvent.model_validate_json(value).data)

    async def send_batch(self, topic: str, partition: int, records: Any) -> tuple[int, int]:
        raise AssertionError("standings are sent one by one")


@pytest.fixture
def store(mongo: Mongo) -> RoutingScoreStore:
    return RoutingScoreStore(mongo)


@pytest.fixture
def topic() -> Topic:
    return Topic()


@pytest.fixture
def keeper(store: RoutingScoreStore, topic: Topic) -> StandingKeeper:
    return StandingKeeper(standings=store, sender=topic, now=lambda: NOW)


async def _rows(mongo: Mongo, batch_id: str, first: int, *qualities: float | None, **fields: Any) -> None:
    rows: list[Document] = [
        {
            "_id": line_id(batch_id, first + at),
            "batch_id": batch_id,
            "segment": 0,
            "org_id": "org_1",
            "provider": "openai",
            "model": "gpt-4o",
            "status": "not_applicable" if quality is None else "scored",
            "scorer_version": "heuristics-2",
            "quality": quality,
            "completed_at": NOW,
            **fields,
        }
        for at, quality in enumerate(qualities)
    ]
    await mongo.collection("scores").insert_missing(rows)


def run_of(batch_id: str, no: int, first: int, last: int) -> SegmentRun:
    return SegmentRun("org_1", batch_id, no + 1, SegmentRef(no, first, last, last - first + 1))


async def test_a_segment_rolled_up_twice_counts_once(
    mongo: Mongo, store: RoutingScoreStore, keeper: StandingKeeper, topic: Topic
) -> None:
    await _rows(mongo, "batch_1", 1, 1.0, 0.5, None)

    assert await store.roll_up([run_of("batch_1", 0, 1, 3)])
    await keeper.step()
    assert not await store.roll_up([run_of("batch_1", 0, 1, 3)])
    await keeper.step()

    standing = await store.standing(*KEY)
    assert standing is not None
    assert (standing.quality, standing.lines, standing.segments, standing.version) == (0.75, 2, 1, 1)
    assert topic.values == [standing]


async def test_several_segments_make_one_change(
    mongo: Mongo, store: RoutingScoreStore, keeper: StandingKeeper, topic: Topic
) -> None:
    for no in range(5):
        await _rows(mongo, "batch_1", 1 + 2 * no, 1.0, 0.0, segment=no)
    await store.roll_up([run_of("batch_1", no, 1 + 2 * no, 2 + 2 * no) for no in range(5)])

    await keeper.step()

    assert [(value.lines, value.segments, value.version) for value in topic.values] == [(10, 5, 1)]


async def test_a_row_that_changed_changes_the_standing(
    mongo: Mongo, store: RoutingScoreStore, keeper: StandingKeeper, topic: Topic
) -> None:
    await _rows(mongo, "batch_1", 1, 1.0, 0.0)
    await store.roll_up([run_of("batch_1", 0, 1, 2)])
    await keeper.step()

    await mongo.collection("scores").delete_many({"_id": line_id("batch_1", 2)})
    await store.roll_up([run_of("batch_1", 0, 1, 2)])
    await keeper.step()

    assert [(value.quality, value.lines, value.version) for value in topic.values] == [
        (0.5, 2, 1),
        (1.0, 1, 2),
    ]


async def test_models_and_organisations_stand_apart(
    mongo: Mongo, store: RoutingScoreStore, keeper: StandingKeeper
) -> None:
    await _rows(mongo, "batch_1", 1, 1.0)
    await _rows(mongo, "batch_1", 2, 0.5, model="other")
    await _rows(mongo, "batch_1", 3, 0.5, model=None)
    await _rows(mongo, "batch_2", 1, 0.0, org_id="org_2")
    await store.roll_up([run_of("batch_1", 0, 1, 3)])
    await store.roll_up([run_of("batch_2", 0, 1, 1)])

    await keeper.step()

    standings = await mongo.collection("routing_scores").find_all({}, {"quality": 1})
    assert {standing["_id"]: standing["quality"] for standing in standings} == {
        "org_1:openai:gpt-4o": 1.0,
        "org_1:openai:other": 0.5,
        "org_2:openai:gpt-4o": 0.0,
    }


async def test_only_the_latest_segments_count(
    mongo: Mongo, store: RoutingScoreStore, keeper: StandingKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing_scores, "LATEST_SEGMENTS", 2)
    for no, quality in enumerate((0.0, 0.5, 1.0)):
        await _rows(mongo, "batch_1", no + 1, quality, segment=no, completed_at=NOW + timedelta(minutes=no))
        await store.roll_up([run_of("batch_1", no, no + 1, no + 1)])

    await keeper.step()

    standing = await store.standing(*KEY)
    assert standing is not None
    assert (standing.quality, standing.segments) == (0.75, 2)


async def test_a_writer_that_was_overtaken_leaves_its_rollups_pending(
    mongo: Mongo, store: RoutingScoreStore, topic: Topic
) -> None:
    class Overtaken(RoutingScoreStore):
        """Between its reading and its writing another process renews the same standing."""

        @override
        async def totals(self, keys: Sequence[Key]) -> Mapping[Key, Document]:
            found = await super().totals(keys)
            await StandingKeeper(standings=store, sender=topic, now=lambda: NOW).step()
            await _rows(mongo, "batch_1", 2, 0.0, segment=1)
            await store.roll_up([run_of("batch_1", 1, 2, 2)])
            return found

    await _rows(mongo, "batch_1", 1, 1.0)
    await store.roll_up([run_of("batch_1", 0, 1, 1)])

    await StandingKeeper(standings=Overtaken(mongo), sender=topic, now=lambda: NOW).step()
    assert len(await store.pending()) == 1
    await StandingKeeper(standings=store, sender=topic, now=lambda: NOW).step()

    standing = await store.standing(*KEY)
    assert standing is not None
    assert (standing.quality, standing.lines) == (0.5, 2)
    assert await store.pending() == []
    assert topic.values[-1] == standing


async def test_a_rollup_that_changed_after_it_was_read_stays_pending(
    mongo: Mongo, store: RoutingScoreStore
) -> None:
    await _rows(mongo, "batch_1", 1, 1.0)
    await store.roll_up([run_of("batch_1", 0, 1, 1)])
    (read,) = await store.pending()
    await _rows(mongo, "batch_1", 2, 0.0)
    await store.roll_up([run_of("batch_1", 0, 1, 2)])

    await store.settle([read])

    assert len(await store.pending()) == 1


async def test_an_older_version_sent_late_is_followed_by_the_newer_one_again(
    mongo: Mongo, store: RoutingScoreStore, keeper: StandingKeeper, topic: Topic
) -> None:
    await _rows(mongo, "batch_1", 1, 1.0)
    await store.roll_up([run_of("batch_1", 0, 1, 1)])
    await keeper.step()
    (old,) = topic.values
    await _rows(mongo, "batch_1", 2, 0.0, segment=1)
    await store.roll_up([run_of("batch_1", 1, 2, 2)])
    await keeper.step()

    # another process had read the first version, and sends it only now
    topic.values.append(old)
    await store.published(old)
    await keeper.step()

    assert topic.values[-1] == await store.standing(*KEY)
    await keeper.step()
    assert len(topic.values) == 4


async def test_a_version_that_was_not_sent_is_sent_next_time(
    mongo: Mongo, store: RoutingScoreStore, topic: Topic
) -> None:
    class Away(Topic):
        @override
        async def send(self, topic: str, key: bytes, value: bytes) -> None:
            raise ConnectionError("away")

    await _rows(mongo, "batch_1", 1, 1.0)
    await store.roll_up([run_of("batch_1", 0, 1, 1)])
    with pytest.raises(ConnectionError):
        await StandingKeeper(standings=store, sender=Away(), now=lambda: NOW).step()

    await StandingKeeper(standings=store, sender=topic, now=lambda: NOW).step()

    assert [value.version for value in topic.values] == [1]


def test_no_scored_lines_are_no_standing() -> None:
    assert standing_of(KEY, None, None, NOW) is None


async def test_a_model_whose_rows_have_all_gone_keeps_its_standing(
    mongo: Mongo, store: RoutingScoreStore, keeper: StandingKeeper, topic: Topic
) -> None:
    await _rows(mongo, "batch_1", 1, 1.0)
    await store.roll_up([run_of("batch_1", 0, 1, 1)])
    await keeper.step()
    await mongo.collection("scores").delete_many({"batch_id": "batch_1"})
    await store.roll_up([run_of("batch_1", 0, 1, 1)])

    await keeper.step()

    assert await store.totals([KEY]) == {}
    assert await store.pending() == []
    assert [value.version for value in topic.values] == [1]


async def test_many_standings_are_renewed_by_one_step(
    mongo: Mongo, store: RoutingScoreStore, keeper: StandingKeeper, topic: Topic
) -> None:
    models = [f"model-{number:03d}" for number in range(120)]
    for number, model in enumerate(models, 1):
        await _rows(mongo, "batch_1", number, number / 120, model=model)
    await store.roll_up([run_of("batch_1", 0, 1, 120)])

    await keeper.step()

    told = {value.model: (value.quality, value.lines, value.version) for value in topic.values}
    assert told == {model: (round(n / 120, 4), 1, 1) for n, model in enumerate(models, 1)}
    assert await store.pending() == []
    assert await store.unpublished() == []


async def test_one_standing_that_cannot_be_sent_keeps_no_other_from_it(
    mongo: Mongo, store: RoutingScoreStore
) -> None:
    class Picky(Topic):
        @override
        async def send(self, topic: str, key: bytes, value: bytes) -> None:
            if b"model-1" in value:
                raise ConnectionError("away")
            await super().send(topic, key, value)

    topic = Picky()
    for number in range(3):
        await _rows(mongo, "batch_1", number + 1, 1.0, model=f"model-{number}")
    await store.roll_up([run_of("batch_1", 0, 1, 3)])

    with pytest.raises(ConnectionError):
        await StandingKeeper(standings=store, sender=topic, now=lambda: NOW).step()

    assert sorted(value.model for value in topic.values) == ["model-0", "model-2"]
    assert [score.model for score in await store.unpublished()] == ["model-1"]


async def test_contexts_are_read_once_and_the_oldest_forgotten(mongo: Mongo) -> None:
    batches = mongo.collection("batches")
    for number in range(5):
        await batches.insert_new({"_id": f"b{number}", "context": {"n": number}})
    contexts = ContextStore(mongo, capacity=3)

    assert await contexts.get_many(["b0", "b1", "b9"]) == {"b0": {"n": 0}, "b1": {"n": 1}}
    await batches.delete_many({"_id": {"$in": ["b0", "b1"]}})
    assert await contexts.get_many(["b0"]) == {"b0": {"n": 0}}
    assert len(await contexts.get_many(["b2", "b3", "b4"])) == 3
    assert len(contexts) == 3
    assert await contexts.get_many(["b0", "b1"]) == {}
    await batches.insert_new({"_id": "b9", "context": {"n": 9}})
    assert await contexts.get_many(["b9"]) == {"b9": {"n": 9}}


async def test_a_tally_says_of_a_segment_what_its_rows_say(mongo: Mongo, store: RoutingScoreStore) -> None:
    await _rows(mongo, "batch_1", 1, 1.0, 0.3333, None, 0.1, 0.7)
    await _rows(mongo, "batch_1", 6, 0.2, model="other", completed_at=NOW + timedelta(seconds=1))
    await _rows(mongo, "batch_1", 7, 0.9, model=None)
    await _rows(mongo, "batch_1", 8, 0.5, completed_at=NOW + timedelta(seconds=2))
    tally = ScoreTally()
    rows = await mongo.collection("scores").find_all({}, sort=[("_id", 1)])
    tally.add(rows[:3])
    tally.add(rows[3:])
    tallied, read = run_of("batch_1", 0, 1, 8), run_of("batch_1", 0, 1, 8)
    tallied.tally = tally

    assert await store.roll_up([tallied])
    told = await store.pending()
    assert not await store.roll_up([read]), "the rows say nothing else"
    assert {rollup["model"]: (rollup["lines"], rollup["quality_sum"]) for rollup in told} == {
        "gpt-4o": (5, 2.6333),
        "other": (1, 0.2),
    }


async def test_a_segment_with_a_tally_is_not_read(mongo: Mongo, store: RoutingScoreStore) -> None:
    await _rows(mongo, "batch_1", 1, 1.0, 0.5)
    run = run_of("batch_1", 0, 1, 2)
    run.tally = ScoreTally()
    run.tally.add(await mongo.collection("scores").find_all({}))
    await mongo.collection("scores").delete_many({})

    assert await store.roll_up([run])
