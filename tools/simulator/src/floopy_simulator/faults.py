"""Scripted faults: which call they meet, how often, and what happens to it."""

import asyncio
from typing import Any, Literal

import msgspec

When = Literal["before", "after"]
Op = Literal[
    "files.create",
    "files.list",
    "files.get",
    "files.delete",
    "files.content",
    "batches.create",
    "batches.list",
    "batches.get",
    "batches.cancel",
    "chat",
    "messages",
    "messages.batches.create",
    "messages.batches.list",
    "messages.batches.get",
    "messages.batches.cancel",
    "messages.batches.delete",
    "messages.batches.results",
    "models.list",
    "models.get",
    "unknown",
]
"""What a call does; `unknown` is a URL that does not exist."""


class Match(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A call matches when everything that is set agrees; `file` is the origin of the file in its path."""

    op: Op | None = None
    provider: str | None = None
    key: str | None = None
    path_contains: str | None = None
    file: Literal["upload", "output", "error"] | None = None
    skip: int = 0


class Status(
    msgspec.Struct, frozen=True, tag="status", tag_field="kind", forbid_unknown_fields=True, kw_only=True
):
    status: int
    headers: dict[str, str] = {}
    body: Any = None  # any JSON value, or a string sent as it is
    when: When = "before"


class Delay(
    msgspec.Struct, frozen=True, tag="delay", tag_field="kind", forbid_unknown_fields=True, kw_only=True
):
    seconds: float
    when: When = "before"


class Drop(
    msgspec.Struct, frozen=True, tag="drop", tag_field="kind", forbid_unknown_fields=True, kw_only=True
):
    when: When = "before"


class Hold(
    msgspec.Struct, frozen=True, tag="hold", tag_field="kind", forbid_unknown_fields=True, kw_only=True
):
    when: When = "before"


class Truncate(
    msgspec.Struct, frozen=True, tag="truncate", tag_field="kind", forbid_unknown_fields=True, kw_only=True
):
    """`length`: Content-Length promises the whole body; `chunked`: the short body ends cleanly."""

    bytes: int
    mode: Literal["length", "chunked"] = "length"


class Garbage(
    msgspec.Struct, frozen=True, tag="garbage", tag_field="kind", forbid_unknown_fields=True, kw_only=True
):
    body: str = "<html>upstream said something else"
    status: int = 200


class Patch(
    msgspec.Struct, frozen=True, tag="patch", tag_field="kind", forbid_unknown_fields=True, kw_only=True
):
    """Merged into the top level of a JSON answer, which is otherwise true."""

    body: dict[str, Any]


Action = Status | Delay | Drop | Hold | Truncate | Garbage | Patch


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    match: Match
    action: Action
    times: int | None = 1
    """None: until it is deleted."""


class Fault:
    """One script at work."""

    def __init__(self, id_: int, script: Script) -> None:
        self.id = id_
        self.script = script
        self.seen = 0
        self.hits = 0
        self.waiting = 0
        self._released = asyncio.Event()

    def meets(self, *, provider: str, op: str, key: str | None, path: str, file: str | None) -> bool:
        match = self.script.match
        wanted = ((match.provider, provider), (match.op, op), (match.key, key), (match.file, file))
        if any(want is not None and want != have for want, have in wanted):
            return False
        return match.path_contains is None or match.path_contains in path

    def take(self) -> bool:
        """Counts a call that it meets; False while it is skipping, or used up."""
        if self.script.times is not None and self.hits >= self.script.times:
            return False
        self.seen += 1
        if self.seen <= self.script.match.skip:
            return False
        self.hits += 1
        return True

    async def wait(self) -> None:
        self.waiting += 1
        try:
            await self._released.wait()
        finally:
            self.waiting -= 1

    def release(self) -> None:
        self._released.set()

    @property
    def label(self) -> str:
        """As it stands in the ledger, for instance `drop:after`."""
        action = self.script.action
        kind = str(action.__struct_config__.tag)
        when = getattr(action, "when", None)
        return kind if when is None else f"{kind}:{when}"


class FaultBook:
    """Kept in memory only: a restarted simulator has none."""

    def __init__(self) -> None:
        self._faults: dict[int, Fault] = {}
        self._next = 1

    def add(self, script: Script) -> Fault:
        fault = Fault(self._next, script)
        self._faults[fault.id] = fault
        self._next += 1
        return fault

    def find(self, id_: int) -> Fault | None:
        return self._faults.get(id_)

    def all(self) -> list[Fault]:
        return list(self._faults.values())

    def remove(self, id_: int | None = None) -> None:
        """Removes one, or all; calls they hold go on."""
        for fault in self.all():
            if id_ is None or fault.id == id_:
                fault.release()
                del self._faults[fault.id]

    def take(self, *, provider: str, op: str, key: str | None, path: str, file: str | None) -> Fault | None:
        """The first fault for this call, counted as hit."""
        for fault in self._faults.values():
            if fault.meets(provider=provider, op=op, key=key, path=path, file=file) and fault.take():
                return fault
        return None
