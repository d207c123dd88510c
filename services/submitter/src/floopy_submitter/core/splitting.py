"""Splitting: a shard that is more than its provider takes at once goes on as two.

Decided first, so that it is never sent whole again; then the second half is stored; then the first gives up
what the second has. A line is in one of them at any moment, and once both stand, in no more than one.
"""

from collections.abc import Sequence
from itertools import accumulate

from floopy_common.domain.ids import split_shard_id
from floopy_common.domain.shard import PLACE, untried
from floopy_submitter.core.input import Measured, ShardInput
from floopy_submitter.core.plan import BYTES_A_TOKEN
from floopy_submitter.ports import Document, Hit, Hold, NewShards


class Splitter:
    """Halves shards, by bytes."""

    def __init__(self, *, shards: NewShards, inputs: ShardInput, hit: Hit) -> None:
        self._shards = shards
        self._inputs = inputs
        self._hit = hit

    async def split(self, hold: Hold, batch: Document) -> bool:
        """False, and nothing done, when the shard has a single line."""
        lines = await self._inputs.measure(batch, hold.shard)
        if len(lines) < 2:
            return False
        await self.part(hold, decision(lines), "too_large")
        return True

    async def part(self, hold: Hold, split: Document, resolution: str) -> None:
        """Decide a split and carry it out; `resolution` is what became of the attempt."""
        await hold.decide_split(split, resolution)
        self._hit("submit.after_split_decided")
        await self.go_on(hold)

    async def go_on(self, hold: Hold) -> None:
        """Carry out what was decided, whoever decided it; a repeat stores the same second half."""
        await self._shards.insert(second_half(hold.shard))
        self._hit("submit.after_split_stored")
        await hold.shrink(first_half(hold.shard))
        self._hit("submit.after_split")


def decision(lines: Sequence[Measured]) -> Document:
    """Where to cut, and what is on either side."""
    total = sum(line.size for line in lines)
    sums = accumulate(line.size for line in lines)
    at = next(number for number, before in enumerate(sums, start=1) if 2 * before >= total)
    at = min(at, len(lines) - 1)
    return {"after": lines[at - 1].line_no, "first": _side(lines[:at]), "second": _side(lines[at:])}


def _side(lines: Sequence[Measured]) -> Document:
    size = sum(line.size for line in lines)
    return {
        "lines": len(lines),
        "bytes": size,
        "tokens_estimate": size // BYTES_A_TOKEN,
        "segments": sorted({line.segment for line in lines}),
    }


def first_half(shard: Document) -> Document:
    """What changes of a shard whose split was decided."""
    return {**_halves(shard)[0], "splits": _number(shard), "split": None}


def second_half(shard: Document) -> Document:
    """The other shard: planned, never tried, in everything else like the one it comes from."""
    return {
        "_id": split_shard_id(shard["_id"], _number(shard)),
        **{name: shard[name] for name in (*PLACE, "kind", "depth", "parent")},
        **_halves(shard)[1],
        "created_at": shard.get("created_at"),
        **untried(),
    }


def _halves(shard: Document) -> tuple[Document, Document]:
    """Both sides with their ranges: those that the decision names, else what lies up to a line and behind."""
    split = shard["split"]
    if "after" not in split:
        return split["first"], split["second"]
    after = split["after"]
    before = [[first, min(last, after)] for first, last in shard["ranges"] if first <= after]
    behind = [[max(first, after + 1), last] for first, last in shard["ranges"] if last > after]
    return {**split["first"], "ranges": before}, {**split["second"], "ranges": behind}


def _number(shard: Document) -> int:
    return (shard.get("splits") or 0) + 1
