"""Every case of the translation's edge list is held by a test that says so."""

import ast
from pathlib import Path

REQUESTS_AND_RESPONSES = range(22, 61)


def edges(path: Path) -> set[int]:
    return {
        argument.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "edge"
        for argument in node.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, int)
    }


def test_every_case_about_requests_and_responses_has_its_test() -> None:
    held = set().union(*(edges(path) for path in Path(__file__).parent.glob("test_*.py")))

    assert set(REQUESTS_AND_RESPONSES) - held == set()
