"""The rules of single values, each refused in the words of OpenAI's validators."""

from datetime import datetime
from typing import Any

from floopy_api.errors import BadRequest

MIN_LIFETIME = 3_600
MAX_LIFETIME = 2_592_000
"""An hour to thirty days, in seconds."""

_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a boolean"),
    (int, "an integer"),
    (float, "a decimal"),
    (str, "a string"),
    (list, "an array"),
    (dict, "an object"),
)


def kind_of(value: object) -> str:
    """What a JSON value is, with its article."""
    return next((name for kind, name in _KINDS if isinstance(value, kind)), "null")


def missing(param: str) -> BadRequest:
    return BadRequest(
        f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
    )


def wrong_type(param: str, expected: str, value: object) -> BadRequest:
    message = f"Invalid type for '{param}': expected {expected}, but got {kind_of(value)} instead."
    return BadRequest(message, param=param, code="invalid_type")


def wrong_value(param: str, value: object, supported: tuple[str, ...]) -> BadRequest:
    choices = ", ".join(f"'{choice}'" for choice in supported)
    message = f"Invalid value: '{shortened(str(value))}'. Supported values are: {choices}."
    return BadRequest(message, param=param, code="invalid_value")


def too_long(param: str, limit: int, length: int) -> BadRequest:
    message = (
        f"Invalid '{param}': string too long. Expected a string with maximum length {limit}, "
        f"but got a string with length {length} instead."
    )
    return BadRequest(message, param=param, code="string_above_max_length")


def shortened(text: str, limit: int = 100) -> str:
    """Text that a message may repeat."""
    return text if len(text) <= limit else f"{text[:limit]}..."


def required_string(body: dict[str, Any], name: str, limit: int) -> str:
    if body.get(name) is None:
        raise missing(name)
    value = body[name]
    if not isinstance(value, str):
        raise wrong_type(name, "a string", value)
    if len(value) > limit:
        raise too_long(name, limit, len(value))
    return value


def whole_number(text: str, param: str) -> int:
    """The number a query or form field spells."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise BadRequest(
            f"Invalid type for '{param}': expected an integer, but got a string instead.",
            param=param,
            code="invalid_type",
        )
    return int(text)


def within(value: int, param: str, lowest: int, highest: int) -> int:
    if value < lowest:
        message = (
            f"Invalid '{param}': integer below minimum value. "
            f"Expected a value >= {lowest}, but got {value} instead."
        )
        raise BadRequest(message, param=param, code="integer_below_min_value")
    if value > highest:
        message = (
            f"Invalid '{param}': integer above maximum value. "
            f"Expected a value <= {highest}, but got {value} instead."
        )
        raise BadRequest(message, param=param, code="integer_above_max_value")
    return value


def lifetime(expiry: object, param: str) -> int:
    """Seconds of an `{anchor, seconds}` object."""
    if not isinstance(expiry, dict):
        raise wrong_type(param, "an object", expiry)
    anchor, seconds = expiry.get("anchor"), expiry.get("seconds")
    if anchor is None:
        raise missing(f"{param}.anchor")
    if anchor != "created_at":
        raise wrong_value(f"{param}.anchor", anchor, ("created_at",))
    if seconds is None:
        raise missing(f"{param}.seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int):
        raise wrong_type(f"{param}.seconds", "an integer", seconds)
    return within(seconds, f"{param}.seconds", MIN_LIFETIME, MAX_LIFETIME)


def unix(moment: datetime | None) -> int | None:
    """Whole seconds since 1970."""
    return None if moment is None else int(moment.timestamp())


def unix_of(moment: datetime) -> int:
    return int(moment.timestamp())
