"""What validating against a schema can cost at most, known before anything is validated.

A validator is native code that nothing can interrupt, so a schema that could run for minutes (`allOf` of two
references to a definition that does the same, thirty times) must be turned away by looking at it. For every
subschema this counts how often one place of an instance may be visited along one path: in-place applicators
(`allOf`, `$ref`, ...) visit the same place again, descending ones (`items`, `properties`, ...) the next
level.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

MAX_NODES: Final = 4_000
"""Subschemas of one schema; far above what any provider takes."""
MAX_DEPTH: Final = 64
_MOST: Final = 1 << 50
"""Where counting stops: too much is too much."""
_SETTLES_WITHIN: Final = 16
"""Levels counted at once; a schema that has not settled by then is counted as deep as its answer."""
_MOST_COUNTED: Final = 60_000
"""Subschemas times levels: counting itself takes about a microsecond each."""
_REPEATS: Final = re.compile(r"\{(\d{1,6})?,?(\d{1,6})?\}")

_SINGLE_IN_PLACE: Final = ("not", "if", "then", "else")
_LIST_IN_PLACE: Final = ("allOf", "anyOf", "oneOf")
_MAP_IN_PLACE: Final = ("dependentSchemas", "dependencies")
_SINGLE_BELOW: Final = (
    "items",
    "additionalItems",
    "additionalProperties",
    "contains",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
)
_LIST_BELOW: Final = ("items", "prefixItems")
_FORBIDDEN: Final = ("$dynamicRef", "$recursiveRef", "$dynamicAnchor", "$recursiveAnchor")


class SchemaUnusable(Exception):  # noqa: N818 - says what is the case
    """A schema nothing is validated against; `args[0]` is the reason."""


class Visits(NamedTuple):
    """`places`: for every place of an instance; `characters`: for every character, where patterns look."""

    places: int
    characters: int


@dataclass
class _Node:
    """One subschema: what it costs by itself, and which others it leads to."""

    own: Visits
    again: int
    """How often the in-place subschemas are gone through: `unevaluated*` does it a second time."""
    in_place: list[int] = field(default_factory=list)
    below_any: list[int] = field(default_factory=list)
    below_named: list[int] = field(default_factory=list)


class SchemaCost:
    """The graph of a schema's subschemas. Raises SchemaUnusable when it is made, if it cannot be bounded."""

    def __init__(self, schema: Any) -> None:
        self._root = schema
        self._numbers: dict[int, int] = {}
        self._schemas: list[Any] = []
        self._nodes: list[_Node] = []
        self._number(schema)
        while len(self._nodes) < len(self._schemas):
            self._nodes.append(self._read(self._schemas[len(self._nodes)]))
        self._order = self._in_place_order()
        nothing = [Visits(0, 0)] * len(self._nodes)
        self._levels = [self._level(nothing)]
        self.bounded = self._settles()

    def visits(self, depth: int) -> Visits:
        """What an instance with `depth` levels of arrays and objects takes at most. Raises SchemaUnusable."""
        while len(self._levels) <= depth and not self.bounded:
            if len(self._levels) * len(self._nodes) > _MOST_COUNTED:
                raise SchemaUnusable("too large for an answer this deep")
            self._levels.append(self._level(self._levels[-1]))
        return self._levels[min(depth, len(self._levels) - 1)][0]

    def _settles(self) -> bool:
        """Whether the count stops growing with the instance's depth: the schema is not recursive."""
        for _ in range(_SETTLES_WITHIN):
            following = self._level(self._levels[-1])
            if following == self._levels[-1]:
                return True
            self._levels.append(following)
        return False

    def _level(self, below: list[Visits]) -> list[Visits]:
        """The visits of every subschema, given those of the next level."""
        counts = list(below)
        for number in self._order:
            node = self._nodes[number]
            again = [counts[child] for child in node.in_place] + [below[child] for child in node.below_any]
            named = [below[child] for child in node.below_named]
            places, characters = (
                min(own + node.again * (sum(each) + max(one, default=0)), _MOST)
                for own, each, one in zip(node.own, _columns(again), _columns(named), strict=True)
            )
            counts[number] = Visits(places, characters)
        return counts

    def _in_place_order(self) -> list[int]:
        """Every node after those it applies in place; a circle would never end by itself."""
        order: list[int] = []
        state = [0] * len(self._nodes)
        for start in range(len(self._nodes)):
            stack = [(start, iter(self._nodes[start].in_place))] if state[start] == 0 else []
            state[start] = max(state[start], 1)
            while stack:
                number, children = stack[-1]
                child = next(children, None)
                if child is None:
                    stack.pop()
                    state[number] = 2
                    order.append(number)
                elif state[child] == 1:
                    raise SchemaUnusable("a reference leads back to itself")
                elif state[child] == 0:
                    state[child] = 1
                    stack.append((child, iter(self._nodes[child].in_place)))
        return order

    def _number(self, schema: Any) -> int:
        known = self._numbers.get(id(schema))
        if known is not None:
            return known
        if len(self._schemas) >= MAX_NODES:
            raise SchemaUnusable("too many subschemas")
        # the list keeps the object alive, so its identity stays its own
        self._schemas.append(schema)
        self._numbers[id(schema)] = len(self._schemas) - 1
        return len(self._schemas) - 1

    def _read(self, schema: Any) -> _Node:
        if not isinstance(schema, dict):
            return _Node(Visits(1, 0), 1)
        if any(word in schema for word in _FORBIDDEN):
            raise SchemaUnusable("dynamic reference")
        if schema is not self._root and any(isinstance(schema.get(word), str) for word in ("$id", "id")):
            raise SchemaUnusable("embedded schema resource")
        again = 1 + sum(word in schema for word in ("unevaluatedItems", "unevaluatedProperties"))
        node = _Node(_own_cost(schema), again)
        node.in_place = [self._number(child) for child in _in_place(schema)]
        if "$ref" in schema:
            node.in_place.append(self._number(self._resolve(schema["$ref"])))
        node.below_any = [self._number(child) for child in _below_any(schema)]
        node.below_named = [self._number(child) for child in _values(schema.get("properties"))]
        return node

    def _resolve(self, reference: Any) -> Any:
        """What a reference within the document points to; nothing is ever fetched."""
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise SchemaUnusable("reference out of the schema")
        target = self._root
        for part in unquote(reference[2:]).split("/") if reference != "#" else ():
            target = _step(target, part.replace("~1", "/").replace("~0", "~"))
        return target


def _step(target: Any, key: str) -> Any:
    if isinstance(target, dict) and key in target:
        return target[key]
    if isinstance(target, list) and key.isdecimal() and len(key) < 9 and int(key) < len(target):
        return target[int(key)]
    raise SchemaUnusable("reference to nothing")


def _columns(visits: list[Visits]) -> tuple[list[int], list[int]]:
    return [one.places for one in visits], [one.characters for one in visits]


def _own_cost(schema: dict[str, Any]) -> Visits:
    sizes = (schema.get(word) for word in ("enum", "required", "properties", "type", "dependentRequired"))
    listed = sum(len(size) for size in sizes if isinstance(size, list | dict))
    named = schema.get("patternProperties")
    patterns = [schema.get("pattern"), *(named if isinstance(named, dict) else ())]
    return Visits(1 + listed, sum(_pattern_cost(pattern) for pattern in patterns if isinstance(pattern, str)))


def _pattern_cost(pattern: str) -> int:
    """Visits per character: the engine without backtracking may go through its whole automaton for each."""
    size = len(pattern)
    for least, most in _REPEATS.findall(pattern):
        size = min(size * max(int(least or 1), int(most or 1), 1), _MOST)
    return size // 2 + 1


def _in_place(schema: dict[str, Any]) -> Iterator[Any]:
    yield from (schema[word] for word in _SINGLE_IN_PLACE if word in schema)
    for word in _LIST_IN_PLACE:
        yield from _items(schema.get(word))
    for word in _MAP_IN_PLACE:
        # `dependencies` also has plain lists of names
        yield from (child for child in _values(schema.get(word)) if not isinstance(child, list))


def _below_any(schema: dict[str, Any]) -> Iterator[Any]:
    """Subschemas of the next level that may all meet at one place of it."""
    yield from (
        schema[word] for word in _SINGLE_BELOW if word in schema and not isinstance(schema[word], list)
    )
    for word in _LIST_BELOW:
        yield from _items(schema.get(word))
    yield from _values(schema.get("patternProperties"))


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _values(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else []
