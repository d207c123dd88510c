"""Every row of OpenAI's surface that we hold is held by a test that names it (`@pytest.mark.surface`)."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VALIDATION = (
    "invalid_json_line",
    "missing_required_parameter",
    "duplicate_custom_id",
    "mismatched_model",
    "model_not_found",
    "invalid_request body.model, body.messages",
    "invalid_request file_id",
    "invalid_url",
    "streaming_unsupported",
    "token_limit_exceeded",
    "invalid_method",
    "empty_file",
    "up to 100 errors",
)
ERRORS = (
    "missing key",
    "wrong key",
    "unknown file id",
    "bad purpose",
    "not .jsonl for batch",
    "body too large",
    "unsupported endpoint",
    "bad completion_window",
    "metadata",
    "unknown input_file_id",
    "input file with another purpose",
    "cancel completed, failed, expired",
    "limit out of range",
    "limit not an integer",
    "unknown after",
    "429 rate_limit_exceeded",
    "quota exhausted",
    "server fault",
    "overloaded",
    "404",
    "405",
    "the envelope on malformed heads",
    "the envelope: malformed JSON",
    "the envelope on every route",
)
CHECKLIST = tuple(number for number in range(1, 19) if number != 15)
"""All but webhooks, which are not offered."""

ROWS = (
    *(f"4.4 {row}" for row in VALIDATION),
    *(f"5 {row}" for row in ERRORS),
    *(f"9.{number}" for number in CHECKLIST),
)


def marked() -> Iterator[str]:
    """What the tests say they hold, one text a mark."""
    for folder in ("services", "tests", "tools", "libs"):
        for path in (ROOT / folder).rglob("test_*.py"):
            yield from _marks_in(path)


def _marks_in(path: Path) -> Iterator[str]:
    text = path.read_text()
    if "mark.surface" not in text:
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.surface":
            (row,) = node.args
            yield str(ast.literal_eval(row))


@pytest.fixture(scope="module")
def held() -> list[str]:
    """The rows of every mark: one mark may name several, with `;` or `,` between them."""
    return [row.strip() for mark in marked() for row in mark.split(";")]


@pytest.mark.parametrize("row", ROWS)
def test_a_test_names_the_row(held: list[str], row: str) -> None:
    section, _, what = row.partition(" ")
    named = re.compile(rf"(?:^|[^\d.]){re.escape(section)}(?![\d.]\d|\d)")

    assert any(named.search(text) and what in text for text in held), f"no test is marked for {row}"
