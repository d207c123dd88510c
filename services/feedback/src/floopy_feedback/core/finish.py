"""Whether the answer came to its own end."""

from typing import Final

from floopy_feedback.core.checks import OK, Check

_ENDED: Final = frozenset({"stop", "tool_calls", "function_call"})
_CUT: Final = {
    "length": Check(False, "length"),
    "content_filter": Check(False, "content_filter"),
    None: Check(False, "no finish reason"),
}
_UNKNOWN: Final = Check(False, "unknown finish reason")


def check_finish(finish_reason: str | None) -> Check:
    """Not ok when the answer was cut off by its length or by a content filter."""
    return OK if finish_reason in _ENDED else _CUT.get(finish_reason, _UNKNOWN)
