"""Scores one exchange: every check that applies to it, and what they add up to."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import msgspec

from floopy_feedback.core.answer import check_answer
from floopy_feedback.core.checks import Check, Checks, quality
from floopy_feedback.core.exchange import Choice, Request, read_request, read_response
from floopy_feedback.core.finish import check_finish
from floopy_feedback.core.json_output import check_json, wants_json
from floopy_feedback.core.refusal import check_refusal
from floopy_feedback.core.repetition import check_repetition
from floopy_feedback.core.schemas import LineSchemas, SchemaCache
from floopy_feedback.core.tools import check_tools

_KNOWN: Final = 4_096
"""Verdicts kept: nearly every line shares its own with others, down to the details."""
_UNCONSTRAINED: Final = Request()


@dataclass(frozen=True)
class Score:
    """The verdict on a line: that of its worst choice.

    `document` has the checks as rows and events show them. Lines share it: it is never changed.
    """

    quality: float
    checks: Checks
    document: dict[str, Any] = field(compare=False)


class Scorer:
    """The heuristics with the schemas they compiled; the same bytes give the same score, whenever."""

    def __init__(self, schemas: SchemaCache | None = None) -> None:
        self._schemas = schemas if schemas is not None else SchemaCache()

    def score(self, request_body: bytes | msgspec.Raw | None, response_body: bytes | msgspec.Raw) -> Score:
        """`request_body` None: it constrains the answer in no way.

        Raises Unreadable when a body is not what its endpoint sends.
        """
        request = _UNCONSTRAINED if request_body is None else read_request(request_body)
        schemas = LineSchemas(self._schemas)
        choices = read_response(response_body).choices
        if len(choices) == 1:
            return _score_choice(request, choices[0], schemas)
        scores = [_score_choice(request, choice, schemas) for choice in choices]
        return min(scores, key=lambda score: score.quality)


@lru_cache(maxsize=_KNOWN)
def _verdict(checks: tuple[tuple[str, Check], ...]) -> Score:
    by_name = dict(checks)
    document = {name: {"ok": ok, "detail": detail} for name, (ok, detail) in checks}
    return Score(quality(by_name), by_name, document)


def _score_choice(request: Request, choice: Choice, schemas: LineSchemas) -> Score:
    message = choice.message
    text = message.text()
    checks: list[tuple[str, Check]] = [
        ("finish", check_finish(choice.finish_reason)),
        ("answer", check_answer(message, text)),
        ("refusal", check_refusal(message, text)),
    ]
    if wants_json(request.response_format):
        checks += check_json(request.response_format, message, text, schemas).items()
    elif text:
        checks.append(("repetition", check_repetition(text)))
    checks += check_tools(request, message, schemas).items()
    return _verdict(tuple(checks))
