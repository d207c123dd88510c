"""Retry shards: lines that failed for a passing reason get another provider batch inside the window."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from floopy_common.domain.batch import BatchStatus
from floopy_common.domain.ids import retry_shard_id
from floopy_common.domain.shard import PLACE, ShardKind, untried
from floopy_common.providers.port import ProviderStatus
from floopy_reconciler.core.look import Look
from floopy_reconciler.ports import Document

OWN_WINDOWS = frozenset({"anthropic"})
"""Providers whose window is none of the batch's: what they had no time for is worth another try."""


@dataclass(frozen=True)
class RetryPolicy:
    """`depth` is how often a line is tried again, `window_left` the seconds another try needs."""

    depth: int
    window_left: float

    def allows(self, batch: Document, shard: Document, now: datetime) -> bool:
        return (
            batch["status"] == BatchStatus.IN_PROGRESS.value
            and batch.get("ending") is None
            and shard["depth"] < self.depth
            and (batch["expires_at"] - now).total_seconds() >= self.window_left
        )


def out_of_its_own_time(batch: Document, shard: Document, look: Look) -> bool:
    """Whether the provider's window ended, and the batch's has not: nothing ends the batch early."""
    return (
        look.status is ProviderStatus.EXPIRED
        and shard["provider"] in OWN_WINDOWS
        and batch.get("ending") is None
    )


def retry_shard(
    parent: Document,
    lines: Sequence[int],
    of_parent: Sequence[int],
    segment_starts: Sequence[tuple[int, int]],
) -> Document:
    """A planned shard over `lines` of its parent, whose lines are `of_parent`; both sorted.

    `segment_starts` are (first line, number) of the parent's segments, sorted. The id follows from the
    parent's, so a repeat makes the same shard.
    """
    share = len(lines) / max(1, parent["lines"])
    return {
        "_id": retry_shard_id(parent["_id"]),
        **{name: parent[name] for name in PLACE},
        "kind": ShardKind.RETRY.value,
        "depth": parent["depth"] + 1,
        "parent": parent["_id"],
        "ranges": runs(lines, of_parent),
        "lines": len(lines),
        "bytes": int(parent["bytes"] * share),
        "tokens_estimate": int((parent.get("tokens_estimate") or 0) * share),
        "segments": segments_of(lines, segment_starts),
        **untried(),
    }


def runs(lines: Sequence[int], of_parent: Sequence[int]) -> list[list[int]]:
    """Inclusive ranges that cover exactly `lines` among `of_parent`; lines of others may lie between."""
    position = {line: index for index, line in enumerate(of_parent)}
    found: list[list[int]] = []
    last = -2
    for line in lines:
        if position[line] == last + 1:
            found[-1][1] = line
        else:
            found.append([line, line])
        last = position[line]
    return found


def segments_of(lines: Sequence[int], segment_starts: Sequence[tuple[int, int]]) -> list[int]:
    """Numbers of the segments that hold any of `lines`."""
    numbers: list[int] = []
    at = 0
    for line in lines:
        while at + 1 < len(segment_starts) and segment_starts[at + 1][0] <= line:
            at += 1
        number = segment_starts[at][1]
        if not numbers or numbers[-1] != number:
            numbers.append(number)
    return numbers
