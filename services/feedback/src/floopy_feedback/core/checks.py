"""What a check says, what each weighs, and the quality they add up to."""

from collections.abc import Mapping
from typing import Final, NamedTuple

SCORER_VERSION: Final = "heuristics-2"
"""Changes with every change that could give the same line another score; part of the scored event's id."""


class Check(NamedTuple):
    """One heuristic's verdict; `detail` says why it is not ok and never quotes content."""

    ok: bool
    detail: str | None = None


Checks = Mapping[str, Check]

OK: Final = Check(True)

WEIGHTS: Final[Mapping[str, int]] = {
    "finish": 3,
    "answer": 4,
    "refusal": 3,
    "json": 4,
    "schema": 3,
    "tool_name": 3,
    "tool_arguments": 3,
    "tool_choice": 3,
    "repetition": 2,
    # the request's fault, not the answer's: shown, and left out of the quality
    "schema_unusable": 0,
}
"""An answer nobody can use (empty, no JSON) weighs most, one that is only clumsy (repetition) least."""


def quality(checks: Checks) -> float:
    """The weighted share of the checks that hold, 0 to 1 with four digits; 1 where none applies."""
    weighed = sum(WEIGHTS[name] for name in checks)
    if weighed == 0:
        return 1.0
    held = sum(WEIGHTS[name] for name, check in checks.items() if check.ok)
    return round(held / weighed, 4)
