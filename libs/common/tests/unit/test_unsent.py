"""Our own answers to lines that are not sent come back as they were stored."""

import pytest

from floopy_common.domain.errors import Invalid
from floopy_common.providers.anthropic.refusal import unsupported_value
from floopy_common.providers.formats import RESULT_FORMATS
from floopy_common.providers.unsent import PROVIDER, unsent_row


def test_a_refusal_is_an_answer_that_no_retry_mends() -> None:
    refused = unsupported_value("n", "is «unsupported»\n.").refused
    row = unsent_row(404, refused.body)

    answer = RESULT_FORMATS[PROVIDER].parse_result(row[:-1])
    same, notes = RESULT_FORMATS[PROVIDER].parse_answer(row[:-1], b"{}", 7)

    assert row.count(b"\n") == 1
    assert (answer.status_code, answer.body, answer.request_id) == (404, refused.body, None)
    assert not answer.ok
    assert not answer.retryable
    assert (same, notes) == (answer, ())


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"status":"x","body":{}}', b"\xff"])
def test_what_is_no_row_is_invalid(raw: bytes) -> None:
    with pytest.raises(Invalid):
        RESULT_FORMATS[PROVIDER].parse_result(raw)
