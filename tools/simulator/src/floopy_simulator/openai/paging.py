"""Lists as OpenAI pages them."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from aiohttp import web

from floopy_simulator.openai.errors import ApiError


class Listed(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=Listed)


def read_limit(request: web.Request, *, default: int, maximum: int) -> int:
    text = request.query.get("limit")
    if text is None:
        return default
    try:
        limit = int(text)
    except ValueError:
        message = f"Invalid type for 'limit': expected an integer, but got '{text}' instead."
        raise ApiError(400, message, param="limit", code="invalid_type") from None
    if not 1 <= limit <= maximum:
        side, bound, sign = ("below_min", 1, ">=") if limit < 1 else ("above_max", maximum, "<=")
        words = "below minimum" if limit < 1 else "above maximum"
        expected = f"Expected a value {sign} {bound}, but got {limit} instead."
        message = f"Invalid 'limit': integer {words} value. {expected}"
        raise ApiError(400, message, param="limit", code=f"integer_{side}_value")
    return limit


def page(
    request: web.Request, items: Sequence[Item], limit: int, to_wire: Callable[[Item], dict[str, object]]
) -> dict[str, object]:
    """The page after the query's `after`, which must be one of `items`."""
    start = 0
    after = request.query.get("after")
    if after is not None:
        places = [place for place, item in enumerate(items) if item.id == after]
        if not places:
            raise ApiError(400, f"Invalid 'after': no such object: {after}", param="after")
        start = places[0] + 1
    chosen = items[start : start + limit]
    return {
        "object": "list",
        "data": [to_wire(item) for item in chosen],
        "first_id": chosen[0].id if chosen else None,
        "last_id": chosen[-1].id if chosen else None,
        "has_more": start + limit < len(items),
    }
