"""JSON Schemas of requests, compiled once and kept in a bounded cache; none is ever fetched from anywhere."""

from collections import OrderedDict
from typing import Any, Final

import jsonschema_rs
from jsonschema_rs import RegexOptions

from floopy_feedback.core.checks import OK, Check
from floopy_feedback.core.json_text import NotJson, decode, depth_of
from floopy_feedback.core.schema_cost import MAX_DEPTH, SchemaCost, SchemaUnusable

MAX_SCHEMA_BYTES: Final = 128 * 1024
MAX_WORK: Final = 10_000_000
"""Visits that validating one line may take, at about 10 ns each: a tenth of a second."""
MAX_EXPLAINED: Final = 500_000
"""Above this the broken keyword is not named: its error carries copies of the answer for every branch."""
MAX_CACHED: Final = 512
MAX_CACHED_BYTES: Final = 8 * 1024 * 1024
"""Schema text the cache stands for; compiled it takes several times as much."""

_PATTERNS: Final = RegexOptions(size_limit=1024 * 1024, dfa_size_limit=1024 * 1024)
"""The engine without backtracking: look-around and back references make a schema unusable."""
_DIFFERS: Final = Check(False, "does not fit")


class CompiledSchema:
    """Validates decoded values within a known amount of work; SchemaUnusable when it cannot be made."""

    def __init__(self, raw: bytes) -> None:
        if len(raw) > MAX_SCHEMA_BYTES:
            raise SchemaUnusable("too large")
        schema = _read(raw)
        self._cost = SchemaCost(schema)
        try:
            self._validator = jsonschema_rs.validator_for(schema, offline=True, pattern_options=_PATTERNS)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            raise SchemaUnusable("not a schema the validator takes") from error

    def work(self, value: Any, text: str) -> int:
        """Visits that validating `value`, decoded from `text`, takes at most. Raises SchemaUnusable."""
        visits = self._cost.visits(MAX_DEPTH if self._cost.bounded else depth_of(value))
        # every value but the first stands behind a comma or an opening bracket
        places = 1 + text.count(",") + text.count("[") + text.count("{")
        return visits.places * places + visits.characters * len(text)

    def fits(self, value: Any, explain: bool) -> Check:
        """Whether `value` fits; with `explain` it is said why not."""
        if self._validator.is_valid(value):
            return OK
        return Check(False, self._broken_keyword(value)) if explain else _DIFFERS

    def _broken_keyword(self, value: Any) -> str:
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            return f"breaks {error.kind.name}"
        return "does not fit"


class SchemaCache:
    """Compiled schemas by their text, the least recently used dropped first; refusals are kept as well."""

    def __init__(self, most: int = MAX_CACHED, most_bytes: int = MAX_CACHED_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._entries: OrderedDict[bytes, CompiledSchema | SchemaUnusable] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def compiled(self, raw: bytes) -> CompiledSchema:
        """Raises SchemaUnusable, for the same text always for the same reason."""
        found = self._entries.get(raw)
        if found is None:
            found = self._add(raw)
        else:
            self._entries.move_to_end(raw)
        if isinstance(found, SchemaUnusable):
            raise found.with_traceback(None)
        return found

    def _add(self, raw: bytes) -> CompiledSchema | SchemaUnusable:
        entry: CompiledSchema | SchemaUnusable
        try:
            entry = CompiledSchema(raw)
        except SchemaUnusable as error:
            entry = error.with_traceback(None)
        if len(raw) <= MAX_SCHEMA_BYTES:
            self._entries[raw] = entry
            self._bytes += len(raw)
        while len(self._entries) > self._most or self._bytes > self._most_bytes:
            dropped, _ = self._entries.popitem(last=False)
            self._bytes -= len(dropped)
        return entry


class LineSchemas:
    """The schemas of one line, with what validating against all of them together may take."""

    def __init__(self, cache: SchemaCache, work: int = MAX_WORK) -> None:
        self._cache = cache
        self._left = work

    def check(self, schema: bytes, value: Any, text: str) -> Check:
        """Whether `value`, decoded from `text`, fits.

        Raises SchemaUnusable when that cannot be found out, or not within what is left.
        """
        compiled = self._cache.compiled(schema)
        work = compiled.work(value, text)
        if work > self._left:
            raise SchemaUnusable("too much work for this answer")
        self._left -= work
        return compiled.fits(value, explain=work <= MAX_EXPLAINED)


def _read(raw: bytes) -> Any:
    try:
        schema = decode(raw.decode())
    except (NotJson, UnicodeDecodeError) as error:
        raise SchemaUnusable("not JSON") from error
    if not isinstance(schema, dict | bool):
        raise SchemaUnusable("not a schema")
    if depth_of(schema) > MAX_DEPTH:
        raise SchemaUnusable("too deep")
    return schema
