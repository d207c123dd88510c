"""What feedback counts."""

from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import Counter

LINES = Counter("floopy_lines_scored_total", "Score rows made, by what they say.", ["status"])
FAILED_CHECKS = Counter("floopy_checks_failed_total", "Checks of lines that were not ok.", ["check"])


def count_rows(rows: Iterable[Mapping[str, Any]]) -> None:
    statuses: Tally[str] = Tally()
    failed: Tally[str] = Tally()
    for row in rows:
        statuses[row["status"]] += 1
        for name, check in row["checks"].items():
            if not check["ok"]:
                failed[name] += 1
    for status, lines in statuses.items():
        LINES.labels(status).inc(lines)
    for name, lines in failed.items():
        FAILED_CHECKS.labels(name).inc(lines)
