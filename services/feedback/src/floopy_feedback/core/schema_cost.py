"""What validating against a schema can cost at most, known before anything is validated.

A validator is native code that nothing can interrupt, so a schema that could run for minutes (`allOf` of two
references to a definition that does the same, thirty times) must be turned away by looking at it. For every
subschema this counts how often one place of an instance may be visited along one path: in-place applicators
(`allOf`, `$ref`, ...) visit the same place again, descending ones (`items`, `properties`, ...) the next
level.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

MAX_NODES: Final = 4_000
"""Subschemas of one schema; far above what any provider takes."""
MAX_DEPTH: Final = 64
_MOST: Final = 1 << 50
"""Where counting stops: too much is too much."""
_MOST_COUNTED: Final = 20_000
"""Subschemas times levels: counting takes about 5 us each; a recursive schema is counted level by level."""
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
        in_place = self._children_first(lambda node: node.in_place)
        if in_place is None:
            # an instance never ends such a loop; a loop through the next level ends with the instance
            raise SchemaUnusable("a reference leads back to itself")
        self._in_place = in_place
        everything = self._children_first(lambda node: node.in_place + node.below_any + node.below_named)
        self.bounded = everything is not None
        self._levels = [
            self._counted(in_place, self._nothing()) if everything is None else self._counted(everything)
        ]

    def visits(self, depth: int) -> Visits:
        """What an instance with `depth` levels of arrays and objects takes at most. Raises SchemaUnusable."""
        while len(self._levels) <= depth and not self.bounded:
            if len(self._levels) * len(self._nodes) > _MOST_COUNTED:
                raise SchemaUnusable("too large for an answer this deep")
            self._levels.append(self._counted(self._in_place, self._levels[-1]))
        return self._levels[min(depth, len(self._levels) - 1)][0]

    def _nothing(self) -> list[Visits]:
        return [Visits(0, 0)] * len(self._nodes)

    def _counted(self, order: list[int], next_level: list[Visits] | None = None) -> list[Visits]:
        """The visits of every subschema, given those of the next level; None: of all levels at once."""
        counts = self._nothing()
        below = counts if next_level is None else next_level
        for number in order:
            node = self._nodes[number]
            again = [counts[child] for child in node.in_place] + [below[child] for child in node.below_any]
            named = [below[child] for child in node.below_named]
            places, characters = (
                min(own + node.again * (sum(each) + max(one, default=0)), _MOST)
                for own, each, one in zip(node.own, _columns(again), _columns(named), strict=True)
            )
            counts[number] = Visits(places, characters)
        return counts

    def _children_first(self, children: Callable[[_Node], list[int]]) -> list[int] | None:
        """Every subschema after those it leads to; None when they go round in a circle."""
        waiting = [len(set(children(node))) for node in self._nodes]
        parents: list[list[int]] = [[] for _ in self._nodes]
        for number, node in enumerate(self._nodes):
            for child in set(children(node)):
                parents[child].append(number)
        order = [number for number, open_children in enumerate(waiting) if open_children == 0]
        for number in order:
            for parent in parents[number]:
                waiting[parent] -= 1
                if waiting[parent] == 0:
                    order.append(parent)
        return order if len(order) == len(self._nodes) else None

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
