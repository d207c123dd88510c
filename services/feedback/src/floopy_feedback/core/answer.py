"""Whether there is an answer at all."""

from typing import Final

from floopy_feedback.core.checks import OK, Check
from floopy_feedback.core.exchange import Message

_EMPTY: Final = Check(False, "empty")


def check_answer(message: Message, text: str) -> Check:
    """Ok with text, a tool call, audio or a marked refusal, which says at least that there is no answer."""
    if text and not text.isspace():
        return OK
    if message.tool_calls or message.function_call or message.audio or message.refuses():
        return OK
    return _EMPTY
