"""Translating while planning: what each line will be upstream, how large, and which lines are never sent."""

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass

from msgspec import Raw

from floopy_common.domain.index import INPUT_ENTRY_BYTES, InputEntry, unpack_input
from floopy_common.providers.anthropic.caching import prefix_key
from floopy_common.providers.anthropic.policy import Policy
from floopy_common.providers.anthropic.refusal import Refused
from floopy_common.providers.anthropic.request import file_ids_of
from floopy_submitter.core.cutting import Segment, Shard, ShardCutter, ShardLimits
from floopy_submitter.core.input import body_of, spans
from floopy_submitter.core.pinning import Pinned, pin, to_bytes
from floopy_submitter.core.stored_files import MAX_FILES, StoredFiles
from floopy_submitter.core.translator import Translators, upstream_size
from floopy_submitter.core.unsent import Unsent, UnsentShard, left_out
from floopy_submitter.ports import Document, IndexBlobs, InputReader, ModelSource

_KIND = "results"


@dataclass(frozen=True)
class Translation:
    """`shards` are sent, `unsent` never is, its answers are in the blob `answers`.

    `blob` holds what a repeat needs to know; `models` are the ids that are sent, by the names asked for.
    """

    shards: list[Shard]
    unsent: list[UnsentShard]
    answers: Document | None
    blob: str
    models: dict[str, str | None]


@dataclass(frozen=True)
class Planned:
    """A batch that was read once: its line index is published, its segments are cut."""

    batch: Document
    index_blob: str
    segments: Sequence[Segment]
    models: Sequence[str]


class TranslationPlanner:
    """Reads a batch's lines once more and decides what is sent of them."""

    def __init__(
        self,
        *,
        blobs: IndexBlobs,
        reader: InputReader,
        files: StoredFiles,
        translators: Translators,
        models: ModelSource,
        policy: Policy,
        limits: ShardLimits,
    ) -> None:
        self.version = translators.version
        self._blobs = blobs
        self._reader = reader
        self._files = files
        self._translators = translators
        self._models = models
        self._policy = policy
        self._limits = limits

    async def plan(self, planned: Planned) -> Translation:
        """Raises BlobMissing or BlobCorrupt when the input is gone."""
        models = await self._models.of(planned.batch["account_id"])
        pinned = pin(self._policy, models, planned.models)
        if self._policy.auto_cache:
            pinned.shared_prefixes = await self._shared_prefixes(planned)
        pins = [planned.batch["_id"]]
        cutter = ShardCutter(self._limits)
        async with AsyncExitStack() as stack:
            unsent = Unsent(lambda: stack.enter_async_context(self._blobs.writer(kind=_KIND, pins=pins)))
            await self._translate(planned, pinned, cutter, unsent)
        async with self._blobs.writer(kind="translation", pins=pins) as writer:
            await writer.write(to_bytes(pinned))
        shards = cutter.finish()
        _leave_out(shards, unsent.shards())
        sent = {name: None if model is None else model.id for name, model in pinned.models.items()}
        return Translation(shards, unsent.shards(), unsent.answers, writer.blob.id, sent)

    async def _translate(self, planned: Planned, pinned: Pinned, cutter: ShardCutter, unsent: Unsent) -> None:
        translator = self._translators.make(planned.batch, pinned)
        async with aclosing(self._lines(planned)) as lines:
            async for segment, entries, bodies in lines:
                await self._learn(planned.batch, pinned, bodies)
                numbered = [(entry.line_no, body) for entry, body in zip(entries, bodies, strict=True)]
                outcomes = await translator.translate(numbered)
                for entry, outcome in zip(entries, outcomes, strict=True):
                    if isinstance(outcome, Refused):
                        await unsent.refuse(entry.line_no, entry.group, segment, outcome)
                    else:
                        size = upstream_size(entry.line_no, outcome.params)
                        unsent.sent(entry.line_no, entry.group)
                        cutter.add(entry.line_no, entry.group, size, 1, segment)

    async def _learn(self, batch: Document, pinned: Pinned, bodies: Sequence[Raw]) -> None:
        """Find the files that the lines refer to; one that is not found stays unknown to the whole batch."""
        for body in bodies:
            for file_id in file_ids_of(body):
                if file_id not in pinned.files and len(pinned.files) < MAX_FILES:
                    pinned.files[file_id] = await self._files.find(batch["org_id"], batch["_id"], file_id)

    async def _shared_prefixes(self, planned: Planned) -> list[str]:
        """Keys, in hex, of the prompts that more than one line begins with."""
        seen: Counter[bytes] = Counter()
        async with aclosing(self._lines(planned)) as lines:
            async for _, _, bodies in lines:
                seen.update(key for body in bodies if (key := prefix_key(body)) is not None)
        return sorted(key.hex() for key, lines in seen.items() if lines > 1)

    async def _lines(self, planned: Planned) -> AsyncGenerator[tuple[int, list[InputEntry], list[Raw]], None]:
        """Runs of lines of one segment: its number, their index entries and their bodies."""
        ranges = planned.batch["input"]["ranges"]
        for segment in planned.segments:
            entries = await self._entries(planned.index_blob, segment)
            async with aclosing(spans(self._reader, ranges, iter(entries))) as runs:
                async for run, data, base in runs:
                    yield segment.no, run, [body_of(data, base, entry) for entry in run]

    async def _entries(self, index_blob: str, segment: Segment) -> list[InputEntry]:
        packed = {
            "blob": index_blob,
            "offset": segment.index_from * INPUT_ENTRY_BYTES,
            "length": segment.lines * INPUT_ENTRY_BYTES,
        }
        async with aclosing(self._reader.read_ranges([packed])) as pieces:
            return list(unpack_input(b"".join([piece async for piece in pieces])))


def _leave_out(shards: Sequence[Shard], unsent: Sequence[UnsentShard]) -> None:
    """Tell each shard which lines of its group are not sent."""
    by_group = left_out(unsent)
    for shard in shards:
        lines = by_group.get(shard.group, ())
        shard.left_out = [line for line in lines if shard.first_line < line < shard.last_line]
