"""A provider's refusal names the user's lines, and a full queue is no refusal."""

import pytest

from floopy_common.providers.port import BatchFault
from floopy_reconciler.core.refuse import MAX_ERRORS, Backoff, is_queue_full, refusal


@pytest.mark.parametrize(
    "fault",
    [
        BatchFault(
            code="token_limit_exceeded", message="Enqueued token limit reached for m in organization o."
        ),
        BatchFault(code=None, message="Enqueued request limit reached for m."),
    ],
)
def test_full_queue_is_no_refusal(fault: BatchFault) -> None:
    assert is_queue_full([BatchFault(code="other"), fault])


def test_other_faults_are_refusals() -> None:
    assert not is_queue_full([BatchFault(code="model_not_found", line=1, message="No such model.")])
    assert not is_queue_full([])


def test_upstream_lines_become_the_users_lines() -> None:
    faults = [
        BatchFault(code="model_not_found", line=2, message="No such model.", param="body.model"),
        BatchFault(code="invalid_request", line=99, message="Beyond the input."),
        BatchFault(code="invalid_request", line=None, message="About no line."),
    ]

    refused = refusal(faults, [4, 7, 9])

    assert [error["line"] for error in refused["errors"]] == [7, None, None]
    assert (refused["code"], refused["message"]) == ("model_not_found", "No such model.")
    assert refused["errors"][0]["param"] == "body.model"


def test_silent_failure_still_says_something() -> None:
    refused = refusal([], [1])

    assert refused["code"] == "provider_failed"
    assert len(refused["errors"]) == 1


def test_errors_are_no_more_than_a_batch_lists() -> None:
    faults = [BatchFault(code="x", line=number) for number in range(1, 200)]

    assert len(refusal(faults, list(range(1, 200)))["errors"]) == MAX_ERRORS


def test_standing_in_line_again_takes_longer_each_time() -> None:
    backoff = Backoff(shortest=5.0, longest=60.0)

    assert [backoff.after(times) for times in (1, 2, 3, 5, 5_000)] == [5.0, 10.0, 20.0, 60.0, 60.0]
