"""Every case of the translation's edge list is held by a test that says so, in whichever suite it is."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
EDGES = range(1, 61)


def marked(path: Path) -> Iterator[int]:
    """The numbers in `@pytest.mark.edge(...)` above the tests of a module, and above those alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.edge":
                    yield from (int(ast.literal_eval(number)) for number in mark.args)


def test_every_case_has_its_test() -> None:
    modules = [
        path
        for part in ("libs", "services", "tools", "tests")
        for path in ROOT.joinpath(part).rglob("test_*.py")
    ]
    held = {number for path in modules for number in marked(path)}

    assert set(EDGES) - held == set()
    assert held <= set(EDGES)
