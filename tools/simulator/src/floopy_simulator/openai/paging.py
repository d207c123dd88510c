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
    if limit < 1:
        message = (
            f"Invalid 'limit': integer below minimum value. Expected a value >= 1, but got {limit} instead."
        )
        raise ApiError(400, message, param="limit", code="integer_below_min_value")
    if limit > maximum:
        message = f"Invalid 'limit': integer above maximum value. Expected a value <= {maximum}, but got {limit} instead."
        raise ApiError(400, message, param="limit", code="integer_above_max_value")
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
