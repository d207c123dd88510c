"""A provider's refusal names the user's lines, and a full queue is no refusal."""

from typing import Any

import pytest

from floopy_common.domain.index import InputEntry, pack_input
from floopy_common.providers.port import BatchFault, ProviderStatus
from floopy_reconciler.core.look import Look
from floopy_reconciler.core.refuse import MAX_ERRORS, Backoff, Refuser, is_queue_full, refusal


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


class Stores:
    """A shard of one line, its batch and its index; what was made of the shard."""

    def __init__(self) -> None:
        self.became: list[Any] = []

    async def get(self, _: str) -> dict[str, Any]:
        return {"_id": "batch_1", "plan": {"index_blob": "blob_1"}}

    async def read(self, *_: Any) -> bytes:
        return pack_input([InputEntry(1, 0, 10, 0)])

    async def requeue(self, _: Any, delay: float, refusals: int) -> None:
        self.became.append((delay, refusals))

    async def refuse(self, _: Any, refused: dict[str, Any]) -> bool:
        self.became.append(refused["errors"])
        return True


@pytest.mark.parametrize("fail", [False, True])
async def test_a_full_queue_is_a_refusal_only_where_nothing_is_to_wait(fail: bool) -> None:
    stores: Any = Stores()
    refuser = Refuser(
        shards=stores, batches=stores, lines=stores, backoff=Backoff(5, 60), fail_when_full=fail
    )
    shard = {
        "_id": "s",
        "batch_id": "batch_1",
        "plan_id": "p",
        "segments": [0],
        "ranges": [[1, 1]],
        "group": 0,
    }
    fault = BatchFault(code="token_limit_exceeded", message="Enqueued token limit reached.")
    look = Look(ProviderStatus.FAILED, {}, {}, (fault,), changed=True, regressed=False)

    assert await refuser.refuse(shard, look) is fail
    error = {"code": fault.code, "line": None, "message": fault.message, "param": None}
    assert stores.became == ([[error]] if fail else [(5.0, 1)])


def test_standing_in_line_again_takes_longer_each_time() -> None:
    backoff = Backoff(shortest=5.0, longest=60.0)

    assert [backoff.after(times) for times in (1, 2, 3, 5, 5_000)] == [5.0, 10.0, 20.0, 60.0, 60.0]
