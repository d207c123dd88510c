"""What feedback counts."""

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import Counter

LINES = Counter("floopy_lines_scored_total", "Score rows made, by what they say.", ["status"])
FAILED_CHECKS = Counter("floopy_checks_failed_total", "Checks of lines that were not ok.", ["check"])


def count_rows(rows: Iterable[Mapping[str, Any]]) -> None:
    for row in rows:
        LINES.labels(row["status"]).inc()
        for name, check in row["checks"].items():
            if not check["ok"]:
                FAILED_CHECKS.labels(name).inc()
