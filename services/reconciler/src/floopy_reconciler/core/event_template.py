"""One encoded event with holes in it, for lines whose events differ in the same few places only.

Encoding each event as a whole costs several times what filling holes does.
"""

import re
from typing import Any

import msgspec

from floopy_common.domain.ids import line_id
from floopy_common.domain.line import LineStatus
from floopy_common.events.lines import Content, LineCompleted, LineCost, LineUsage, encode_line, line_event

HOLES = (
    *("number", "number", "number", "line_no", "custom_id", "status_code", "finish_reason"),
    *("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "total_tokens"),
    *("nano_usd", "flag"),
    *("request_offset", "request_length", "request_preview"),
    *("response_offset", "response_length", "response_preview"),
)
"""What fills a template, in order: numbers, and JSON for the rest. `number`: the digits in the line's id."""

_BYTES = frozenset({"number", "custom_id", "finish_reason", "flag", "request_preview", "response_preview"})
_ANY_NUMBER = 999_999_999
_HOLE = re.compile(rb"\x00(\w+)\x00")
"""No JSON has a NUL, so nothing that anybody wrote looks like a hole."""


def template_of(
    shared: dict[str, Any],
    *,
    price_version: str | None,
    request_blob: str,
    unconstrained: bool,
    response_blob: str,
) -> bytes:
    """A bytes format for events of lines that succeeded; `shared` are the fields that they have in common."""
    identity = line_id(shared["batch_id"], _ANY_NUMBER)
    data = LineCompleted(
        **shared,
        line_id=identity,
        line_no=_hole("line_no"),
        custom_id=_hole("custom_id"),
        status=LineStatus.SUCCEEDED,
        status_code=_hole("status_code"),
        error=None,
        finish_reason=_hole("finish_reason"),
        usage=LineUsage(*(_hole(name) for name in HOLES if name.endswith("_tokens"))),
        cost=LineCost(_hole("nano_usd"), _hole("flag"), price_version),
        request=_content(request_blob, "request", unconstrained),
        response=_content(response_blob, "response"),
    )
    encoded = encode_line(line_event(data, data.timing.completed_at))
    number = b"%09d" % _ANY_NUMBER
    prefix = identity.encode().removesuffix(number)
    return _format(encoded.replace(prefix + number, prefix + b"\0number\0"))


def _hole(name: str) -> Any:
    """Raw JSON goes into an event as it is, whatever the field's type."""
    return msgspec.Raw(b"\0%b\0" % name.encode())


def _content(blob: str, name: str, unconstrained: bool = False) -> Content:
    offset, length, preview = (_hole(f"{name}_{what}") for what in ("offset", "length", "preview"))
    return Content(blob, offset, length, preview, unconstrained=unconstrained)


def _format(encoded: bytes) -> bytes:
    found = [name.decode() for name in _HOLE.findall(encoded)]
    if tuple(found) != HOLES:
        raise RuntimeError(f"the event's fields have another order than HOLES: {found}")
    return _HOLE.sub(lambda hole: _conversion(hole[1].decode()), encoded.replace(b"%", b"%%"))


def _conversion(name: str) -> bytes:
    return b"%b" if name in _BYTES else b"%d"
