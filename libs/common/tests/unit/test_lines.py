"""The line event: its bytes, its published schema, and what is no line event."""

import json
from datetime import UTC, datetime
from types import NoneType
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from pydantic import BaseModel

from floopy_common.domain.errors import Invalid
from floopy_common.domain.line import LineStatus
from floopy_common.events import line_schema, lines

MOMENT = datetime(2026, 11, 24, 12, 0, 0, 250_000, tzinfo=UTC)


def make_event(**changes: Any) -> lines.LineEvent:
    data = lines.LineCompleted(
        source="batch",
        org_id="org_1",
        api_key_id="key_1",
        batch_id="batch_1",
        segments=3,
        segment=lines.SegmentRef(1, 201, 400, 200),
        line_id="batch_1:000000201",
        line_no=201,
        custom_id="mine \u2028 é",
        provider="openai",
        model="gpt-4o-mini",
        endpoint="/v1/chat/completions",
        status=LineStatus.SUCCEEDED,
        status_code=200,
        error=None,
        finish_reason="stop",
        usage=lines.LineUsage(10, 2, 5, 1, 15),
        cost=lines.LineCost(1_250, None, "genai-prices==1"),
        timing=lines.LineTiming(MOMENT, MOMENT, MOMENT),
        session_id=None,
        content_policy="reference",
        request=lines.Content("blob_in", 100, 20, "hello"),
        response=lines.Content("blob_out", 7, 30, "world"),
    )
    return lines.line_event(msgspec.structs.replace(data, **changes), MOMENT)


def test_the_same_line_gives_the_same_bytes_and_comes_back_equal() -> None:
    event = make_event()

    value = lines.encode_line(event)

    assert value == lines.encode_line(make_event())
    assert lines.decode_line(value) == event
    assert json.loads(value)["id"] == "batch_1:000000201:completed"


def test_the_published_models_read_what_is_sent_and_write_what_is_read() -> None:
    inline = lines.Content("blob_out", 7, 9, "w", msgspec.Raw(b'{"a":1}'), (lines.BlobRange("blob_2", 0, 2),))
    value = lines.encode_line(make_event(response=inline))

    published = line_schema.LineEvent.model_validate_json(value)

    assert published.data.response is not None
    assert published.data.response.body == {"a": 1}
    assert lines.decode_line(published.model_dump_json(exclude_unset=True).encode()).data.response == inline


def _structs() -> list[type[msgspec.Struct]]:
    kinds = [kind for kind in vars(lines).values() if isinstance(kind, type)]
    own = [kind for kind in kinds if kind.__module__ == lines.__name__]
    return [kind for kind in own if issubclass(kind, msgspec.Struct)]


def _shape(hint: Any) -> Any:
    """A type with our own classes by name, and any JSON object as `json`."""
    if hint in {msgspec.Raw, dict[str, Any]}:
        return "json"
    if hint is msgspec.UnsetType:
        return NoneType
    if isinstance(hint, type) and hint.__module__ in {lines.__name__, line_schema.__name__}:
        return hint.__name__
    arguments = get_args(hint)
    return {_shape(argument) for argument in arguments} if _nests(arguments) else hint


def _nests(arguments: tuple[Any, ...]) -> bool:
    return any(isinstance(argument, type) for argument in arguments)


@pytest.mark.parametrize("struct", _structs(), ids=lambda struct: struct.__name__)
def test_structs_and_published_models_are_equal(struct: type[msgspec.Struct]) -> None:
    model: type[BaseModel] = getattr(line_schema, struct.__name__)
    required = {field.name for field in msgspec.structs.fields(struct) if field.required}

    assert list(struct.__struct_fields__) == list(model.model_fields)
    assert required == {name for name, field in model.model_fields.items() if field.is_required()}
    hints = get_type_hints(struct), get_type_hints(model)
    for name in struct.__struct_fields__:
        assert _shape(hints[0][name]) == _shape(hints[1][name]), name


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        lines.encode_line(make_event()).replace(b'"dataversion":1', b'"dataversion":2'),
        lines.encode_line(make_event()).replace(b"batch.line.completed", b"batch.line.scored"),
        lines.encode_line(make_event()).replace("é".encode(), b"\xe9"),
    ],
    ids=["empty", "no fields", "no text", "deep", "newer major", "other type", "not utf-8"],
)
def test_anything_else_is_invalid(value: bytes) -> None:
    with pytest.raises(Invalid):
        lines.decode_line(value)


def test_a_field_added_later_is_ignored() -> None:
    value = lines.encode_line(make_event()).replace(b'"source":"batch"', b'"source":"batch","new":[1]')
    assert lines.decode_line(value) == make_event()
