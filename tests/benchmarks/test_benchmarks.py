"""Every benchmark runs, small, and closes as it promises; whatever its figures are."""

import asyncio
import importlib
import json
from collections.abc import Iterator

import pytest
from benchmarks.__main__ import NAMES
from benchmarks.growth import ENVIRONMENT
from benchmarks.harness import Options, show
from benchmarks.plot import exponent, log_log
from benchmarks.system import attach, started_system

_SMALL = Options(small=True, rounds=1)
_ALONE = frozenset({"poll"})
"""Each starts systems of its own, with providers of its own: too dear to be run along."""


@pytest.fixture(scope="module")
def shared_system() -> Iterator[None]:
    """One system for all benchmarks that need no other: starting it costs more than they do."""
    # a loop of its own, which becomes nobody else's
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        starting = started_system(ENVIRONMENT)
        system = runner.run(starting.__aenter__())
        attach(system.data_dir, ENVIRONMENT)
        try:
            yield
        finally:
            attach(None)
            runner.run(starting.__aexit__(None, None, None))


@pytest.mark.usefixtures("shared_system")
@pytest.mark.parametrize("name", [name for name in NAMES if name not in _ALONE])
async def test_benchmark_closes_with_a_line_of_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    show(await module.run(_SMALL))
    closing = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert closing.keys() >= {"name", "value", "unit", "limit", "ratio", "rounds", "machine"}
    assert closing["name"] == name
    assert closing["value"] > 0
    assert closing["rounds"]
    assert (closing["limit"] is None) == (closing["ratio"] is None)


def test_exponent_is_that_of_the_power_law() -> None:
    assert exponent([10, 100, 1000], [3 * x**2 for x in (10, 100, 1000)]) == pytest.approx(2)


def test_plot_has_a_line_for_each_series() -> None:
    drawn = log_log([10, 1000], {"upload": [0.1, 10], "plan": [0.2, 20]}, "lines", "seconds")
    assert drawn.count("<polyline") == 2
    assert drawn.count("<circle") == 4
