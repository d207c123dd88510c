"""Schemas come from users: none is fetched, none crashes the process, none runs for long."""

import contextlib
import json
import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floopy_feedback.core.checks import OK, Check
from floopy_feedback.core.json_text import MAX_DEPTH, NotJson, decode, depth_of
from floopy_feedback.core.schema_cost import SchemaCost, SchemaUnusable
from floopy_feedback.core.schemas import MAX_SCHEMA_BYTES, CompiledSchema, LineSchemas, SchemaCache

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {
        "node": {
            "anyOf": [
                {"type": "integer"},
                {
                    "type": "object",
                    "properties": {"left": {"$ref": "#/$defs/node"}, "right": {"$ref": "#/$defs/node"}},
                    "required": ["left", "right"],
                    "additionalProperties": False,
                },
            ]
        }
    },
    "$ref": "#/$defs/node",
}


def compiled(schema: Any) -> CompiledSchema:
    return CompiledSchema(json.dumps(schema).encode())


def fits(schema: Any, value: Any) -> Check:
    return LineSchemas(SchemaCache()).check(json.dumps(schema).encode(), value, json.dumps(value))


def doubling(levels: int) -> dict[str, Any]:
    """A definition that applies the next one twice, and so on: 2 ** levels visits for one value."""
    twice = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return {"$defs": {**twice, f"d{levels}": {"type": "integer"}}, "$ref": "#/$defs/d0"}


def nested(word: str, schema: dict[str, Any], levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for _ in range(levels):
        inner = {**schema, word: [inner]}
    return inner


def test_a_value_that_fits_is_ok_and_the_broken_keyword_is_named() -> None:
    assert fits(PERSON, {"name": "a", "age": 1}) == OK
    assert fits(PERSON, {"name": "a"}) == Check(False, "breaks required")
    assert fits(PERSON, {"name": "a", "age": "1"}) == Check(False, "breaks type")
    assert fits(PERSON, {"name": "a", "age": 1, "x": 2}) == Check(False, "breaks additionalProperties")


def test_recursive_schemas_work() -> None:
    tree: Any = 1
    for _ in range(20):
        tree = {"left": tree, "right": 2}

    assert fits(TREE, tree) == OK
    assert not fits(TREE, {"left": tree, "right": "x"}).ok


@pytest.mark.parametrize("schema", [True, {}, {"type": "object", "properties": {"$ref": {"type": "string"}}}])
def test_trivial_schemas_are_usable(schema: Any) -> None:
    assert fits(schema, {"$ref": "x"}) == OK


def test_a_line_has_one_budget_for_all_its_validations() -> None:
    schemas = LineSchemas(SchemaCache(), work=300)
    raw, value = json.dumps(PERSON).encode(), {"name": "a", "age": 1}

    assert schemas.check(raw, value, json.dumps(value)).ok
    with pytest.raises(SchemaUnusable, match="too much work"):
        for _ in range(30):
            schemas.check(raw, value, json.dumps(value))


@pytest.mark.parametrize(
    "schema",
    [
        None,
        [],
        {"type": 5},
        {"type": "strange"},
        {"$ref": "http://127.0.0.1:9/x.json"},
        {"$ref": "file:///etc/hostname"},
        {"$ref": "other.json#/a"},
        {"$ref": "#nowhere"},
        {"$ref": "#/$defs/missing"},
        {"$ref": 7},
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"not": {"$ref": "#"}},
        {"$schema": "http://127.0.0.1:9/meta"},
        {"$dynamicAnchor": "x", "$dynamicRef": "#x"},
        {"$recursiveRef": "#"},
        {"properties": {"a": {"$id": "http://x/y", "$ref": "#/properties/b"}}},
        {"pattern": "("},
        {"pattern": "^(?=a)a$"},
        {"pattern": "(((a{1000}){1000}){1000})"},
        {"anyOf": [{"const": n} for n in range(5_000)]},
        {"description": "x" * MAX_SCHEMA_BYTES},
    ],
    ids=lambda schema: json.dumps(schema)[:40],
)
def test_schemas_nothing_can_be_validated_against_are_unusable(schema: Any) -> None:
    with pytest.raises(SchemaUnusable):
        compiled(schema)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"\xff", b'"\\ud800"', b"[" * 100_000, b'{"a":' * 500 + b"1" + b"}" * 500]
)
def test_text_that_is_no_schema_is_unusable(raw: bytes) -> None:
    with pytest.raises(SchemaUnusable):
        CompiledSchema(raw)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (doubling(40), 1),
        ({"items": doubling(20)["$defs"]["d0"], **doubling(20)}, [1] * 1_000),
        ({"properties": {"a": {"allOf": [{"$ref": "#"}] * 4}}}, json.loads('{"a":' * 100 + "1" + "}" * 100)),
        ({"items": {"not": {"pattern": "1[01]{1000}y"}}}, ["01" * 500] * 1_000),
        ({"items": {"enum": list(range(20_000))}}, [-1] * 20_000),
        (nested("allOf", {"unevaluatedProperties": False}, 40), {}),
        ({"patternProperties": {"^(a?){300}a{300}$": {}}}, {"a" * 100 + str(n): n for n in range(2_000)}),
        ({"pattern": "1[01]{1000}y"}, "01" * 50_000),
    ],
    ids=["doubling", "items", "recursive", "pattern", "enum", "unevaluated", "names", "long text"],
)
def test_a_hostile_schema_costs_no_more_than_the_bound(schema: Any, value: Any) -> None:
    started = time.process_time()
    with contextlib.suppress(SchemaUnusable):
        fits(schema, value)
    assert time.process_time() - started < 1


def test_a_loop_through_references_does_not_take_the_process_down() -> None:
    """In a process of its own, because a stack overflow in native code leaves nothing to report it."""
    program = (
        "from floopy_feedback.core.schemas import LineSchemas, SchemaCache\n"
        "from floopy_feedback.core.schema_cost import SchemaUnusable\n"
        "from floopy_feedback.core.json_text import NotJson, decode\n"
        'schema = b\'{"properties": {"a": {"$ref": "#"}}}\'\n'
        "schemas = LineSchemas(SchemaCache())\n"
        "for depth in (10, 1_000, 100_000, 1_000_000):\n"
        "    text = '{\"a\":' * depth + '1' + '}' * depth\n"
        "    try:\n"
        "        print(schemas.check(schema, decode(text), text).ok)\n"
        "    except (NotJson, SchemaUnusable) as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.split("\n")[:4] == ["True", "too deep", "too deep", "too deep"]


def test_the_cost_of_a_plain_schema_does_not_grow_with_depth() -> None:
    cost = SchemaCost(PERSON)

    assert cost.bounded
    assert cost.visits(1) == cost.visits(100)
    assert cost.visits(1).places < 50


def test_the_cost_of_a_recursive_schema_grows_with_depth() -> None:
    cost = SchemaCost({"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}})

    assert not cost.bounded
    assert cost.visits(1).places < 50
    assert cost.visits(30).places > 2**30


def test_the_cache_is_bounded_by_entries_and_by_bytes() -> None:
    cache = SchemaCache(most=10, most_bytes=1_000)
    for n in range(100):
        cache.compiled(json.dumps({"const": n}).encode())
    assert len(cache) == 10

    cache.compiled(json.dumps({"description": "x" * 970}).encode())
    assert len(cache) == 1


def test_the_cache_returns_what_it_compiled_and_remembers_refusals() -> None:
    cache = SchemaCache()
    raw = json.dumps(PERSON).encode()

    assert cache.compiled(raw) is cache.compiled(raw)
    for _ in range(2):
        with pytest.raises(SchemaUnusable, match="out of the schema"):
            cache.compiled(b'{"$ref": "http://127.0.0.1:9/"}')
    assert len(cache) == 2


@pytest.mark.parametrize(
    "text", ["", "{", "NaN", "[1,]", "{'a': 1}", "1 2", '"\\ud800"', "```json\n{}\n```", "1e"]
)
def test_what_is_not_json_is_not_decoded(text: str) -> None:
    with pytest.raises(NotJson):
        decode(text)


def test_depth_is_counted_and_limited() -> None:
    assert [depth_of(value) for value in (1, [], {}, [[]], {"a": [{}], "b": 1})] == [0, 1, 1, 2, 3]
    assert decode("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    with pytest.raises(NotJson, match="too deep"):
        decode("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))


@pytest.mark.parametrize("text", ["9" * 5_000, "-" + "9" * 100_000, "1e999999"])
def test_enormous_numbers_break_nothing(text: str) -> None:
    try:
        value = decode(text)
    except NotJson:
        return
    assert isinstance(fits({"type": "integer", "multipleOf": 3}, value), Check)


WORDS = [
    "type",
    "properties",
    "items",
    "allOf",
    "anyOf",
    "not",
    "$ref",
    "$defs",
    "enum",
    "pattern",
    "required",
    "additionalProperties",
    "if",
    "then",
    "dependentSchemas",
    "unevaluatedProperties",
    "$id",
    "a",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8) | st.sampled_from(["#", "#/$defs/a", "#/properties/a", "object", "string", "^a+$"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=25,
)  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(JSON, JSON)
def test_no_schema_and_no_value_breaks_validation(schema: Any, value: Any) -> None:
    try:
        first = fits(schema, value)
    except SchemaUnusable:
        return
    assert first == fits(schema, value)
