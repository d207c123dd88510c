"""How long a shard waits, and which accounts are left alone."""

import pytest

from floopy_common.domain.shard import WaitReason
from floopy_common.providers.port import NotAccepted
from floopy_submitter.core.waiting import Backoff, Breaker, reason_of

BACKOFF = Backoff(5, 300)


@pytest.mark.parametrize(
    ("previous", "retry_after", "expected"),
    [
        (None, None, 5),
        (5, None, 10),
        (200, None, 300),
        (None, 30, 30),
        (100, 30, 200),
        (None, 86_400, 300),
        (None, 0, 5),
    ],
)
def test_a_wait_doubles_is_no_shorter_than_asked_for_and_bounded(previous, retry_after, expected) -> None:
    waiting = None if previous is None else {"backoff": previous}

    assert BACKOFF.after({"waiting": waiting}, retry_after) == expected


def test_the_nth_wait_grows_to_its_bound_and_spreads() -> None:
    assert 4.5 <= BACKOFF.nth(0) <= 5
    assert 270 <= BACKOFF.nth(1_000_000) <= 300


@pytest.mark.parametrize(
    ("status", "queue_full", "reason"),
    [
        (429, False, WaitReason.RATE_LIMITED),
        (429, True, WaitReason.QUEUE_FULL),
        (400, True, WaitReason.QUEUE_FULL),
        (None, False, WaitReason.UNAVAILABLE),
    ],
)
def test_the_reason_is_the_providers(status, queue_full, reason) -> None:
    refusal = NotAccepted("no", status=status, retryable=True, queue_full=queue_full)

    assert reason_of(refusal, fail_when_full=False) is reason


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (NotAccepted("full", status=429, retryable=True, queue_full=True), None),
        (NotAccepted("slow down", status=429, retryable=True), WaitReason.RATE_LIMITED),
        (NotAccepted("pay", status=429, retryable=True, queue_full=True, blocked=True), WaitReason.BLOCKED),
    ],
)
def test_only_a_full_queue_can_be_something_nobody_waits_for(refusal, reason) -> None:
    assert reason_of(refusal, fail_when_full=True) is reason


def test_what_is_refused_for_good_waits_for_nothing() -> None:
    assert reason_of(NotAccepted("no", status=400), fail_when_full=False) is None


def test_a_breaker_keeps_the_longest_pause_and_forgets_it_when_over() -> None:
    now = [100.0]
    breaker = Breaker(lambda: now[0])
    breaker.pause("a", 10)
    breaker.pause("a", 2)
    breaker.pause("b", 1)

    now[0] = 105.0
    assert breaker.paused() == {"a"}
    now[0] = 110.0
    assert breaker.paused() == set()
