"""A log-log plot as plain SVG, and the exponent of a power law through its points."""

import math
from collections.abc import Iterator, Mapping, Sequence

_WIDTH, _HEIGHT = 720, 440
_LEFT, _TOP, _RIGHT, _BOTTOM = 70, 20, 110, 50
_COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f")


def exponent(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The k of the least-squares fit of y = c * x**k."""
    logs = [(math.log(x), math.log(max(y, 1e-6))) for x, y in zip(xs, ys, strict=True)]
    mean_x = sum(x for x, _ in logs) / len(logs)
    mean_y = sum(y for _, y in logs) / len(logs)
    return sum((x - mean_x) * (y - mean_y) for x, y in logs) / sum((x - mean_x) ** 2 for x, _ in logs)


def log_log(xs: Sequence[float], series: Mapping[str, Sequence[float]], x_name: str, y_name: str) -> str:
    """One line of points for each series, a grid line for each power of ten."""
    across = _Axis(xs, _LEFT, _WIDTH - _RIGHT)
    up = _Axis([y for ys in series.values() for y in ys], _HEIGHT - _BOTTOM, _TOP)
    middle = f'x="{(_LEFT + _WIDTH - _RIGHT) / 2:g}" y="{_HEIGHT - 10}"'
    side = f'x="16" y="{_HEIGHT / 2:g}" transform="rotate(-90 16 {_HEIGHT / 2:g})"'
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        *_grid(across, up),
        f'<text {middle} text-anchor="middle">{x_name}</text>',
        f'<text {side} text-anchor="middle">{y_name}</text>',
    ]
    for number, (name, ys) in enumerate(series.items()):
        lines += _series(name, [(across.at(x), up.at(y)) for x, y in zip(xs, ys, strict=True)], number)
    return "\n".join([*lines, "</svg>", ""])


class _Axis:
    """From values to places, whole powers of ten at both ends."""

    def __init__(self, values: Sequence[float], first: float, last: float) -> None:
        logs = [math.log10(max(value, 1e-3)) for value in values]
        self.low, self.high = math.floor(min(logs)), max(math.ceil(max(logs)), math.floor(min(logs)) + 1)
        self._first, self._last = first, last

    def at(self, value: float) -> float:
        share = (math.log10(max(value, 1e-3)) - self.low) / (self.high - self.low)
        return round(self._first + share * (self._last - self._first), 1)


def _grid(across: _Axis, up: _Axis) -> Iterator[str]:
    left, right, top, bottom = _LEFT, _WIDTH - _RIGHT, _TOP, _HEIGHT - _BOTTOM
    for power in range(across.low, across.high + 1):
        x = across.at(10.0**power)
        yield f'<path d="M{x} {top}V{bottom}" stroke="#ddd"/>'
        yield f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{10.0**power:,g}</text>'
    for power in range(up.low, up.high + 1):
        y = up.at(10.0**power)
        yield f'<path d="M{left} {y}H{right}" stroke="#ddd"/>'
        yield f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{10.0**power:g}</text>'


def _series(name: str, points: Sequence[tuple[float, float]], number: int) -> list[str]:
    colour = _COLOURS[number % len(_COLOURS)]
    path = " ".join(f"{x},{y}" for x, y in points)
    legend = _TOP + 14 + 18 * number
    return [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in points),
        f'<text x="{_WIDTH - _RIGHT + 12}" y="{legend}" fill="{colour}">{name}</text>',
    ]
