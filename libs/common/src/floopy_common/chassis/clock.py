"""The only place that reads the clock."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """Wall clock, UTC, to the millisecond (what MongoDB keeps)."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards, for deadlines within this process."""
        ...


class SystemClock:
    def now(self) -> datetime:
        current = datetime.now(UTC)
        return current.replace(microsecond=current.microsecond // 1000 * 1000)

    def monotonic(self) -> float:
        return time.monotonic()
