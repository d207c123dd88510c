"""The published contract of every event: generated from the code, and true of what the code sends."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator, ValidationError
from pydantic import BaseModel

from floopy.contracts import GOLDEN, SCHEMA, files
from floopy_common.events import envelope, lines
from floopy_common.events.lifecycle import BatchEvent
from floopy_common.events.line_schema import LineCompleted
from floopy_common.events.scores import LineScored, RoutingScore
from floopy_common.events.usage import UsageRecorded
from floopy_common.topics import TOPICS

CONTRACTS = Path(__file__).parents[2] / "contracts/events"
GENERATED = files()
GOLDENS = sorted(path for path in GENERATED if not path.endswith(SCHEMA))
DATA: dict[str, type[BaseModel]] = {
    "batch.line.completed": LineCompleted,
    "batch.line.scored": LineScored,
    "routing.score.updated": RoutingScore,
    "usage.recorded": UsageRecorded,
}


def committed(path: str) -> bytes:
    return (CONTRACTS / path).read_bytes()


def validator(event_type: str) -> Draft202012Validator:
    schema = json.loads(committed(f"{event_type}/v1/{SCHEMA}"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def type_of(path: str) -> str:
    return path.partition("/")[0]


@pytest.mark.parametrize("path", sorted(GENERATED))
def test_the_contract_is_up_to_date(path: str) -> None:
    hint = "run `python -m floopy.contracts contracts/events` and commit the result"
    assert committed(path) == GENERATED[path], hint


def test_nothing_but_what_is_generated_is_there() -> None:
    there = {path.relative_to(CONTRACTS).as_posix() for path in CONTRACTS.rglob("*") if path.is_file()}
    assert there == GENERATED.keys()


def test_every_topic_has_a_schema_and_a_golden_message() -> None:
    for name in (SCHEMA, GOLDEN):
        assert {type_of(path) for path in GENERATED if path.endswith(f"/{name}")} == TOPICS.keys()


@pytest.mark.parametrize("path", GOLDENS)
def test_a_golden_message_is_what_its_schema_says(path: str) -> None:
    validator(type_of(path)).validate(json.loads(committed(path)))


@pytest.mark.parametrize("path", GOLDENS)
def test_a_golden_message_decodes_and_encodes_to_the_same_bytes(path: str) -> None:
    value = committed(path).removesuffix(b"\n")

    event = envelope.decode(value)

    assert (event.type, event.dataversion) == (type_of(path), 1)
    assert datetime.fromisoformat(event.time).tzinfo is not None
    if event.type == lines.LINE_COMPLETED:
        assert lines.encode_line(lines.decode_line(value)) == value
    else:
        assert msgspec.json.encode(msgspec.json.decode(value)) == value


@pytest.mark.parametrize("path", GOLDENS)
def test_a_golden_message_has_every_field_of_its_model(path: str) -> None:
    data = json.loads(committed(path))["data"]
    model = DATA.get(type_of(path), BatchEvent)

    read = model.model_validate(data)

    assert data.keys() == model.model_fields.keys()
    assert read.model_dump(mode="json", exclude_unset=True).keys() == data.keys()


@pytest.mark.parametrize("path", GOLDENS)
def test_a_field_that_is_added_breaks_no_consumer(path: str) -> None:
    value: dict[str, Any] = json.loads(committed(path))
    value["data"]["added_later"] = {"a": 1}

    validator(type_of(path)).validate(value)
    assert envelope.decode(json.dumps(value).encode()).id == value["id"]
    if type_of(path) == lines.LINE_COMPLETED:
        lines.decode_line(json.dumps(value).encode())


@pytest.mark.parametrize("event_type", sorted(TOPICS))
def test_a_schema_refuses_what_the_code_would_never_send(event_type: str) -> None:
    good = json.loads(committed(f"{event_type}/v1/{GOLDEN}"))
    for wrong in (
        {**good, "type": "another.type"},
        {**good, "dataversion": 2},
        {**good, "time": 7},
        {**good, "data": {**good["data"], "org_id": 7}},
        {name: value for name, value in good.items() if name != "id"},
        {**good, "data": {name: value for name, value in good["data"].items() if name != "org_id"}},
    ):
        with pytest.raises(ValidationError):
            validator(event_type).validate(wrong)
