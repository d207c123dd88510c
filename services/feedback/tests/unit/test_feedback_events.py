"""What is sent of a stored row is what the published models say."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floopy_common.events.scores import (
    LineScored,
    LineScoredEvent,
    RoutingScore,
    RoutingScoreEvent,
    ScoreStatus,
    routing_event,
    scored_event,
)

MOMENT = datetime(2026, 11, 24, 13, 59, 59, 999_000, tzinfo=UTC)
ROW: dict[str, Any] = {
    "_id": "batch_1:000000007",
    "org_id": "org_1",
    "batch_id": "batch_1",
    "segment": 0,
    "line_no": 7,
    "custom_id": "mine-7",
    "status": "scored",
    "scorer_version": "heuristics-2",
    "quality": 0.75,
    "checks": {"finish": {"ok": False, "detail": "length"}},
    "provider": "openai",
    "model": "gpt-4o-mini",
    "completed_at": MOMENT,
}


def test_the_event_follows_from_the_row_alone() -> None:
    value = scored_event(ROW)

    assert value == scored_event(dict(ROW))
    event = LineScoredEvent.model_validate_json(value)
    assert event.id == "batch_1:000000007:scored:heuristics-2"
    assert (event.subject, event.time) == (ROW["_id"], MOMENT)


@settings(deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.none() | st.text(st.characters(exclude_categories=["Cs"])),
    st.sampled_from(ScoreStatus),
    st.none() | st.floats(0, 1),
)
def test_what_is_sent_is_exactly_what_the_model_declares(
    custom_id: str, model: str | None, status: ScoreStatus, quality: float | None
) -> None:
    row = {**ROW, "custom_id": custom_id, "model": model, "status": status.value, "quality": quality}

    sent = msgspec.json.decode(scored_event(row))

    assert sent["data"].keys() == LineScored.model_fields.keys()
    assert sent.keys() == LineScoredEvent.model_fields.keys()
    event = LineScoredEvent.model_validate(sent)
    assert (event.data.custom_id, event.data.model, event.data.quality) == (custom_id, model, quality)


@pytest.mark.parametrize("model", ["gpt-4o", "ft:gpt-4o:org::1"])
def test_a_standing_is_keyed_by_organisation_provider_and_model(model: str) -> None:
    score = RoutingScore(
        org_id="org_1",
        provider="openai",
        model=model,
        version=3,
        scorer_version="heuristics-2",
        quality=0.5,
        lines=10,
        segments=1,
        updated_at=MOMENT,
    )

    event_id, key, value = routing_event(score)

    assert (event_id, key) == (f"org_1:openai:{model}:3", f"org_1:openai:{model}")
    event = RoutingScoreEvent.model_validate_json(value)
    assert (event.id, event.subject, event.data) == (event_id, key, score)
