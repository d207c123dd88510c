"""The generated reference says what the code says."""

from pathlib import Path

import pytest

from floopy.reference import pages

REFERENCE = Path(__file__).parents[2] / "docs/reference"


@pytest.mark.parametrize(
    "name", ["configuration.md", "topics.md", "collections.md", "failpoints.md", "openai-on-anthropic.md"]
)
def test_the_page_is_up_to_date(name: str) -> None:
    assert (REFERENCE / name).read_text() == pages()[name], "run `make reference` and commit the result"


def test_every_page_is_generated() -> None:
    assert {path.name for path in REFERENCE.glob("*.md")} == pages().keys()
