"""Models as clients see them."""

from typing import Literal

import msgspec


class ModelObject(msgspec.Struct, frozen=True, kw_only=True):
    """`created` is 0: no table we have says when a model was made."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """The one list of the API that has no pages."""

    object: Literal["list"] = "list"
    data: list[ModelObject]
