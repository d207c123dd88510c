"""A log record is one JSON line without secrets, whatever the user put into it."""

import json
import logging

import pytest

from floopy_common.chassis.logs import JsonFormatter
from floopy_common.chassis.redaction import redact


def _format(message: str, **extra: object) -> str:
    record = logging.makeLogRecord({"msg": message, "levelno": logging.INFO, "levelname": "INFO", **extra})
    return JsonFormatter("floopy-test").format(record)


def test_newlines_and_escapes_stay_inside_one_line() -> None:
    line = _format("a\nb\x1b[31m", batch_id="batch_1")

    assert "\n" not in line
    assert "\x1b" not in line
    assert json.loads(line)["batch_id"] == "batch_1"


@pytest.mark.parametrize(
    "secret",
    [
        "sk-abcdefghijkl",
        "Bearer abcdef1234567890",
        "mongodb://user:hunter22@host/db",
        "flp_0123456789abcdefXYZ",
    ],
)
def test_secrets_are_masked_in_messages_extras_and_exceptions(secret: str) -> None:
    try:
        raise ValueError(secret)
    except ValueError as error:
        line = _format(f"using {secret}", detail=secret, exc_info=(type(error), error, error.__traceback__))

    assert "abcdef" not in line
    assert "hunter22" not in line


def test_ordinary_words_are_left_alone() -> None:
    assert (
        redact("a task-runner asked for risk-averse things") == "a task-runner asked for risk-averse things"
    )
