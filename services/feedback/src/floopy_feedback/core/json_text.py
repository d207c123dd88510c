"""Decodes JSON a model wrote: strict, and the same verdict whoever calls."""

from typing import Any, Final

import msgspec

MAX_DEPTH: Final = 128
"""Deeper answers are attacks on whoever reads them; a fixed number keeps the verdict deterministic."""

_decode = msgspec.json.Decoder().decode


class NotJson(Exception):  # noqa: N818 - says what happened
    """`args[0]` is the reason."""


def decode(text: str) -> Any:
    """The value. Raises NotJson for anything but one JSON value of bearable depth."""
    try:
        value = _decode(text)
    except RecursionError as error:
        raise NotJson("too deep") from error
    # a lone surrogate has no UTF-8 form (ValueError)
    except (msgspec.MsgspecError, ValueError) as error:
        raise NotJson("not JSON") from error
    if text.count("[") + text.count("{") > MAX_DEPTH and depth_of(value) > MAX_DEPTH:
        raise NotJson("too deep")
    return value


def depth_of(value: Any) -> int:
    """Levels of arrays and objects, 0 for a plain value."""
    depth = 0
    level = [value] if isinstance(value, list | dict) else []
    while level:
        depth += 1
        level = [child for parent in level for child in _children(parent) if isinstance(child, list | dict)]
    return depth


def _children(parent: Any) -> Any:
    return parent.values() if isinstance(parent, dict) else parent
