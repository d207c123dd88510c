"""The shape of every list."""

from typing import Any, Generic, Literal, TypeVar

import msgspec

T = TypeVar("T")


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One page; SDKs go on with `after=<id of the last element>` while `has_more`."""

    object: Literal["list"] = "list"
    data: list[T]
    first_id: str | None
    last_id: str | None
    has_more: bool


def page_of(data: list[Any], *, has_more: bool) -> Page[Any]:
    """The page of these wire objects, each with an `id`."""
    return Page(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=has_more,
    )
