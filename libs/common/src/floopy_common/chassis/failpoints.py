"""Named steps at which a test may kill the process: SIGKILL, as a machine would."""

import os
import signal

FAILPOINTS: dict[str, str] = {}
"""Every name with the moment it stands for; docs and tests are checked against it."""


def declare(names: dict[str, str]) -> None:
    """Add names; one name stands for one step."""
    clash = FAILPOINTS.keys() & names.keys()
    if clash:
        raise ValueError(f"declared twice: {sorted(clash)}")
    FAILPOINTS.update(names)


class Failpoints:
    """`hit(name)` kills this process when `name` is the one the setting FLOOPY_FAIL_AT gives."""

    def __init__(self, fail_at: str | None) -> None:
        self._fail_at = fail_at

    def hit(self, name: str) -> None:
        if name == self._fail_at:
            os.kill(os.getpid(), signal.SIGKILL)
