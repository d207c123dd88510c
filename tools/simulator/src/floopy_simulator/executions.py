"""How often each scripted body has been executed."""

from collections.abc import Callable


def count_executions(known: dict[str, int]) -> tuple[Callable[[str], int], dict[str, int]]:
    """A counter over `known`, and the totals it changed, which the caller stores with what they led to."""
    fresh: dict[str, int] = {}

    def executed(body_sha: str) -> int:
        before = known.get(body_sha, 0)
        known[body_sha] = fresh[body_sha] = before + 1
        return before

    return executed, fresh
