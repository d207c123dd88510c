"""Shards that are not sent after all: the provider refuses the whole, or the translator lines of it.

A translator other than the plan's may refuse what that one took. Such lines get the answers that they would
have had from the beginning. First they become a shard of their own, as half of a split; then that one, which
has nothing to send, is settled as it stands, in one write with its answers.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

from floopy_common.domain.errors import BlobCorrupt
from floopy_common.domain.shard import ShardEnd, ShardKind, ShardState
from floopy_common.providers.port import NotAccepted
from floopy_common.providers.unsent import PROVIDER, unsent_row
from floopy_submitter.core.input import Judged, RefusedLine, ShardInput
from floopy_submitter.core.plan import archive_document
from floopy_submitter.core.splitting import Splitter
from floopy_submitter.core.unsent import UnsentShard
from floopy_submitter.ports import Document, Hold, IndexBlobs

_KIND = "results"


class Refuser:
    """Takes from a shard what cannot be sent of it."""

    def __init__(self, *, inputs: ShardInput, splitter: Splitter, blobs: IndexBlobs) -> None:
        self._inputs = inputs
        self._splitter = splitter
        self._blobs = blobs

    async def refuse(self, hold: Hold, batch: Document) -> None:
        """Let the shard go without the lines that are refused: split, or settled when that is all of them.

        Raises BlobMissing or BlobCorrupt when the input cannot be read.
        """
        judged = await self._inputs.judge(batch, hold.shard)
        if not judged.refused:
            raise BlobCorrupt(f"lines of {hold.shard['_id']} were refused, and then they were not")
        if judged.sent:
            await self._splitter.part(hold, partition(hold.shard, judged), "untranslatable")
        else:
            await hold.end(answered(await self._store(batch, hold.shard, judged.refused)), "untranslatable")

    async def _store(self, batch: Document, shard: Document, refused: Sequence[RefusedLine]) -> Document:
        """The answers, as planning stores those of lines that it refuses."""
        answers = UnsentShard(shard["group"])
        length = 0
        async with self._blobs.writer(kind=_KIND, pins=[batch["_id"]]) as rows:
            for line_no, segment, why in refused:
                row = unsent_row(why.status, why.body)
                await rows.write(row)
                answers.take(line_no, segment, length, len(row) - 1, adjoining=False)
                length += len(row)
        async with self._blobs.writer(kind=_KIND, pins=[batch["_id"]]) as index:
            await index.write(answers.packed())
        return archive_document(index.blob.id, answers, {"blob": rows.blob.id, "length": length})


def answered(archive: Document) -> Document:
    """What changes of a shard of which nothing is sent."""
    return {
        "provider": PROVIDER,
        "kind": ShardKind.REFUSED.value,
        "bytes": 0,
        "tokens_estimate": 0,
        "state": ShardState.SETTLED.value,
        "ended": ShardEnd.FINISHED.value,
        "archive": archive,
        "waiting": None,
    }


def refused_as_a_whole(refusal: NotAccepted) -> Document:
    """What changes of a shard whose input the provider will never take."""
    code = refusal.code or ("request_too_large" if refusal.too_large else None)
    error = {"code": code, "line": None, "message": refusal.message, "param": None}
    return {
        "state": ShardState.REFUSED.value,
        "ended": ShardEnd.REFUSED.value,
        "refused": {"code": code, "message": refusal.message, "errors": [error]},
        "waiting": None,
    }


def partition(shard: Document, judged: Judged) -> Document:
    """The split that leaves the shard what can be sent; its size is measured whenever that is sent."""
    refused = [line.line_no for line in judged.refused]
    return {
        "first": {
            "lines": len(judged.sent),
            "bytes": 0,
            "tokens_estimate": shard["tokens_estimate"],
            "segments": sorted({segment for _, segment in judged.sent}),
            "ranges": _without(shard["ranges"], refused),
        },
        "second": {
            "lines": len(refused),
            "bytes": 0,
            "tokens_estimate": 0,
            "segments": sorted({line.segment for line in judged.refused}),
            "ranges": _runs(refused),
        },
    }


def _without(ranges: Iterable[Sequence[int]], lines: Sequence[int]) -> list[list[int]]:
    """Sorted inclusive ranges without some of the numbers in them."""
    left: list[list[int]] = []
    for first, last in ranges:
        start = first
        for line_no in lines[bisect_left(lines, first) : bisect_right(lines, last)]:
            if start < line_no:
                left.append([start, line_no - 1])
            start = line_no + 1
        if start <= last:
            left.append([start, last])
    return left


def _runs(lines: Sequence[int]) -> list[list[int]]:
    """Inclusive ranges of numbers that follow each other."""
    runs: list[list[int]] = []
    for line_no in lines:
        if runs and runs[-1][1] == line_no - 1:
            runs[-1][1] = line_no
        else:
            runs.append([line_no, line_no])
    return runs
