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
    "duplicate_custom_id at a distance",
    "a bad file of 200 MB: every fault",
    "a bad file of 200 MB is read no further",
)
ERRORS = (
    "missing key",
    "wrong key",
    "unknown file id",
    "unknown batch",
    "another tenant's id",
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

OTHERS = (
    "1.1 part order is free",
    "1.1 purpose: output-only",
    "1.1 file, purpose: required",
    "1.1 default expiry",
    "1.1 expires_after[anchor]",
    "1.1 expires_after in bracket keys and as JSON",
    "1.1 expiry enforced",
    "1.1 expiry: the bytes go",
    "1.1 filename",
    "1.1 upload-time content check",
    "1.1 rows without `method`",
    "1.1 size of a file",
    "1.1 a client that leaves",
    "1.2 every field",
    "1.2 status",
    "1.3 the five keys",
    "1.3 an empty page",
    "1.3 purpose, limit, order, after",
    "1.3 limit 1..10000",
    "1.4 delete",
    "1.4 deleting the input of a running batch",
    "1.5 Content-Type, Content-Length",
    "1.5 Range",
    "1.5 ETag",
    "1.5 safe headers",
    "2 Upload object",
    "2 UploadPart",
    "2 parts in parallel",
    "2 upload_file_chunked",
    "2 upload_file_chunked of 130 MiB",
    "2 part_ids",
    "2 purpose, the full list",
    "2 filename, purpose, bytes, mime_type required",
    "2 expires_after",
    "2 a client that leaves",
    "2 each part at most 64 MB",
    "2 sum of part bytes",
    "2 md5",
    "2 mime_type",
    "2 nothing may be added",
    "2 cancel",
    "2 expired after one hour",
    "2 there is no GET",
    "3.1 metadata and output_expires_after",
    "3.1 endpoint: Anthropic takes chat only",
    "3.1 a moderation needs its input",
    "3.1 embedding inputs",
    "3.2 list",
    "3.2 list: five fields",
    "3.2 list: limit 1..100, 20 by default",
    "3.2 no delete, no update",
    "3.2 cancel",
    "3.2 retrieve refreshes",
    "3.3 every field",
    "3.3 errors",
    "3.3 model: null until the input is read",
    "3.3 timestamps are set once and stay",
    "3.3 request_counts move",
    "3.3 usage",
    "3.4 cancel again",
    "3.4 what each status has set",
    "3.4 failed: errors, no files, 0/0/0",
    "3.4 expired: what was finished is kept",
    "3.4 cancelled: what was finished is kept",
    "4.1 BOM, CRLF, blank lines, no final newline, U+2028",
    "4.1 NaN, Infinity, deep nesting",
    "4.1 duplicate keys",
    "4.1 huge numbers",
    "4.1 custom_id",
    "4.1 lines of 1 MiB",
    "4.1 a line of nearly 16 MiB",
    "4.1 a line above 16 MiB, flat memory",
    "4.2 every field of an output line",
    "4.3 HTTP failure",
    "4.3 batch_expired",
    "4.3 batch_cancelled",
    "5 415",
    "5.1 x-request-id",
    "5.1 X-Client-Request-Id",
    "5.2 Idempotency-Key",
    "5.2 Idempotency-Key: keyed by API key",
    "5.2 Idempotency-Key: keyed by route",
    "5.2 Idempotency-Key: 24 h",
    "5.2 x-stainless-retry-count",
    "5.2 a repeat of a create that is still in flight",
    "5.2 x-should-retry",
    "8 more than 50,000 lines",
    "8 a batch above the limits of a provider is split",
    "9.4 endpoints that are taken",
    "9.4 the three others are refused",
    "models list, every field",
    "models retrieve",
    "models unknown, 404 model_not_found",
)
"""Rules without a table of their own, by the section that has them."""

ROWS = (
    *OTHERS,
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
