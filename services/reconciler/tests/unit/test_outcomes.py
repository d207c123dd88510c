"""Prices and the models they belong to."""

import pytest

from floopy_reconciler.core.outcomes import is_same_model, readable


@pytest.mark.parametrize(
    ("asked", "said", "same"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("gpt-4", "gpt-4-0613", True),
        ("claude-opus-4-1", "claude-opus-4-1-20250805", True),
        ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022", True),
        ("claude-sonnet-4-0", "claude-sonnet-4-20250514", True),
        ("gpt-4o", None, True),
        (None, "gpt-4o", True),
        ("gpt-4o", "gpt-4o-mini-2024-07-18", False),
        ("gpt-4o-2024-05-13", "gpt-4o-2024-08-06", False),
        ("gpt-4o", "gpt-4o-2024-08-06-fast", False),
        ("gpt-4o-mini", "gpt-4o", False),
    ],
)
def test_a_dated_snapshot_is_the_model_that_was_asked_for(
    asked: str | None, said: str | None, same: bool
) -> None:
    assert is_same_model(asked, said) is same


@pytest.mark.parametrize("raw", [b'{"a": "b"}', '{"a": "\u2028 é"}'.encode()])
def test_readable_bytes_stay_what_they_are(raw: bytes) -> None:
    assert readable(raw) is raw
