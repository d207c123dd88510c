"""Lists as Anthropic pages them."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from aiohttp import web

from floopy_simulator.anthropic.errors import invalid

DEFAULT_LIMIT, MAX_LIMIT = 20, 1000


class Listed(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=Listed)


def page(
    request: web.Request, items: Sequence[Item], to_wire: Callable[[Item], dict[str, object]]
) -> dict[str, object]:
    """The page after `after_id`, or right before `before_id`, or the first one."""
    limit = _read_limit(request)
    after, before = request.query.get("after_id"), request.query.get("before_id")
    if after is not None and before is not None:
        raise invalid("Only one of `after_id` and `before_id` may be given")
    if before is not None:
        end = _place(items, before, "before_id")
        start = max(end - limit, 0)
        more = start > 0
    else:
        start = 0 if after is None else _place(items, after, "after_id") + 1
        end = start + limit
        more = end < len(items)
    chosen = items[start:end]
    return {
        "data": [to_wire(item) for item in chosen],
        "has_more": more,
        "first_id": chosen[0].id if chosen else None,
        "last_id": chosen[-1].id if chosen else None,
    }


def _read_limit(request: web.Request) -> int:
    text = request.query.get("limit", str(DEFAULT_LIMIT))
    if not text.removeprefix("-").isdecimal():
        raise invalid("limit: Input should be a valid integer, unable to parse string as an integer")
    limit = int(text)
    if limit < 1:
        raise invalid("limit: Input should be greater than or equal to 1")
    if limit > MAX_LIMIT:
        raise invalid(f"limit: Input should be less than or equal to {MAX_LIMIT}")
    return limit


def _place(items: Sequence[Listed], item_id: str, name: str) -> int:
    for place, item in enumerate(items):
        if item.id == item_id:
            return place
    raise invalid(f"{name}: Invalid pagination cursor: {item_id}")
