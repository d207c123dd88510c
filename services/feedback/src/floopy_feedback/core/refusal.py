"""Whether the model declined to answer."""

import re
from typing import Final

from floopy_feedback.core.checks import OK, Check
from floopy_feedback.core.exchange import Message

_WINDOW: Final = 160
"""A refusal says so at once; what comes later is a caveat."""
_LONGEST: Final = 1_000
"""Whoever goes on for longer than this has answered something after all."""

_CANNOT: Final = (
    r"(?:can'?t|cannot|can not|won't|will not|am unable to|'m unable to|am not able to|'m not able to)"
)
_HELP: Final = (
    r"(?:assist|help|comply|fulfil|fulfill|do that|answer (?:that|this)|continue with (?:that|this)"
    r"|provide (?:that|this|you with (?:that|this))|engage (?:in|with)|support (?:that|this))\b"
)
_MAKE: Final = r"(?:create|generate|write|produce|discuss|share) (?:that|this)\b"
_APOLOGY: Final = (
    r"(?:(?:i'm|i am|we're|we are)?\s?(?:very |so |really )?sorry|i apologi[sz]e|my apologies|apologies)"
)
_AS_AI: Final = r"as an? (?:ai|artificial intelligence|large language model|language model)[a-z ]{0,40}"
_OPENING: Final = re.compile(
    rf"(?:{_APOLOGY}[,.:;]? (?:but )?|{_AS_AI}, |unfortunately, )?(?:i|we) ?{_CANNOT} {_HELP}"
    rf"|{_APOLOGY}[,.:;]? (?:but )?(?:i|we) ?{_CANNOT} {_MAKE}"
    r"|i must (?:respectfully )?(?:decline|refuse)\b"
)
_INITIALS: Final = tuple("aimrsuvw")
"""Letters the phrases above begin with: most answers are seen to be none of them at once."""
_APOSTROPHES: Final = str.maketrans({"\u2018": "'", "\u2019": "'", "\u02bc": "'", "\u00b4": "'", "`": "'"})

_MARKED: Final = Check(False, "marked by the provider")
_OPENS: Final = Check(False, "opens like a refusal")


def check_refusal(message: Message, text: str) -> Check:
    """Conservative: only what the provider marks, or a short answer that opens with a known phrase."""
    if message.refuses():
        return _MARKED
    if not text or len(text) > _LONGEST:
        return OK
    opening = text[:_WINDOW].lower()
    if not opening.lstrip().startswith(_INITIALS):
        return OK
    if "`" in opening or not opening.isascii():
        opening = opening.translate(_APOSTROPHES)
    return _OPENS if _OPENING.match(" ".join(opening.split())) else OK
