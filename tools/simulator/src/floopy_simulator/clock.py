"""The one clock of the simulator: wall time plus an offset that tests move."""

import time
from collections.abc import Callable


class Clock:
    """Unix seconds; runs at wall speed, and jumps when a test advances it."""

    def __init__(self, offset: float = 0.0, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self.offset = offset

    def now(self) -> float:
        return self._wall() + self.offset

    def advance(self, seconds: float) -> float:
        """Move by `seconds` (negative moves back) and return the new time."""
        self.offset += seconds
        return self.now()
