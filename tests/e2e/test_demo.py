"""The demo is what a newcomer sees first: both providers, side by side, from nothing to balanced."""

import io
from pathlib import Path

from floopy_e2e.lines import custom_ids
from rich.console import Console

from floopy.demo import MODELS, NUMBERS, Example, run_demo

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_demo_runs_its_file_on_both_providers_side_by_side(tmp_path: Path) -> None:
    said = io.StringIO()
    example = Example(EXAMPLES, tmp_path / "demo")

    ran = run_demo(example, "embedded", Console(file=said, width=100))

    assert [one.provider for one in ran] == list(MODELS) == ["openai", "anthropic"]
    for one in ran:
        assert one.batch["status"] == "completed"
        assert one.batch["model"] == MODELS[one.provider]
        assert {one.lines[name] for name in NUMBERS} == {200}
        assert one.batch["floopy"]["balanced"]
        assert one.accounts["cost_nano_usd"] > 0
        assert one.accounts["unpriced"] == 0
        assert 0 < one.accounts["quality"] <= 1
        requests = example.requests(one.provider).read_bytes()
        assert custom_ids(one.output.read_bytes()) == custom_ids(requests)
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in said.getvalue().splitlines()]
    shown = {row[0]: row[1:] for row in rows if len(row) == 3}
    assert {name: shown[name] for name in NUMBERS} == {name: ["200", "200"] for name in NUMBERS}
    assert shown["lines"] == ["200 completed, 0 failed"] * 2
    assert shown["balanced"] == ["yes", "yes"]
    assert {"tokens", "cost, batch price", "mean score"} <= shown.keys()
