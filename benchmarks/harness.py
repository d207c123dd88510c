"""What every benchmark shares: options, rounds, the table, the closing line."""

import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Options:
    """`small` runs stay alive in CI; only full ones have figures worth keeping."""

    small: bool
    rounds: int
    alone: str | None = None
    """The one sink that `sinks` and `redeliver` run, instead of all."""
    provider: str = "openai"
    """Who answers in `end_to_end`."""
    batches: int | None = None
    """How many batches `many` creates; None: as many as its figure is about."""


@dataclass
class Outcome:
    """A benchmark's figures: one `value` and one `limit` a round, in `unit`.

    `limit` is what the simplest possible program reached in the same round, None where there is none.
    `details` are shown and end in the closing line.
    """

    name: str
    unit: str
    values: list[float] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    tables: list[tuple[Sequence[str], Sequence[Sequence[Any]]]] = field(default_factory=list)

    @property
    def value(self) -> float:
        return statistics.median(self.values)

    @property
    def limit(self) -> float | None:
        return statistics.median(self.limits) if self.limits else None

    def to_wire(self) -> dict[str, Any]:
        limit = self.limit
        return {
            "name": self.name,
            "value": _rounded(self.value),
            "unit": self.unit,
            "limit": None if limit is None else _rounded(limit),
            "ratio": None if not limit else round(self.value / limit, 3),
            "rounds": [_rounded(value) for value in self.values],
            **self.details,
        }


def machine() -> dict[str, Any]:
    """The machine's description, as docs/benchmarks.md quotes it."""
    with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        models = [line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpus": os.cpu_count(),
        "cpu": models[0] if models else platform.processor(),
        "memory_gib": round(memory / 2**30),
        "python": platform.python_version(),
    }


def show(outcome: Outcome) -> None:
    """Print the tables and, last, the closing line."""
    for header, rows in outcome.tables:
        sys.stdout.write(table(header, rows) + "\n\n")
    sys.stdout.write(json.dumps({**outcome.to_wire(), "machine": machine()}) + "\n")
    sys.stdout.flush()


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns padded to their widest cell; numbers to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(header), *cells]) for i in range(len(header))]
    lines = ["  ".join(name.ljust(width) for name, width in zip(header, widths, strict=True))]
    for row, shown in zip(rows, cells, strict=True):
        aligned = [
            text.rjust(width) if isinstance(cell, int | float) else text.ljust(width)
            for cell, text, width in zip(row, shown, widths, strict=True)
        ]
        lines.append("  ".join(aligned))
    return "\n".join(line.rstrip() for line in lines)


def _rounded(value: float) -> float:
    return round(value, 3) if abs(value) < 100 else round(value)
