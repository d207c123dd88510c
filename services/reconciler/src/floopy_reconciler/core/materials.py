"""Gets the stored bytes of a segment ready to be read at random, and lets go of them again."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from floopy_common.domain.errors import BlobCorrupt, Invalid
from floopy_common.domain.index import INPUT_ENTRY_BYTES, results_between, unpack_input
from floopy_reconciler.core.jobs import Stored
from floopy_reconciler.ports import Archived, Archives, Document, Formats, SegmentInputs


class _Nothing:
    """The archive of a source that has none."""

    path = None

    def __len__(self) -> int:
        return 0

    def read(self, offset: int, length: int) -> bytes:
        raise BlobCorrupt(f"an index speaks of {length} bytes at {offset} of an archive that is not there")


NOTHING = _Nothing()


class Materials:
    """Input in memory (a segment is at most 16 MiB or one line), archives on disk."""

    def __init__(self, *, inputs: SegmentInputs, archives: Archives, formats: Formats) -> None:
        self._inputs = inputs
        self._archives = archives
        self._formats = formats

    @asynccontextmanager
    async def opened(
        self, batch: Document, segment: Document, sources: Sequence[Document]
    ) -> AsyncIterator[Stored]:
        """Raises BlobMissing or BlobCorrupt when something that the segment rests on is not there."""
        lines = await self._inputs.index(
            batch["plan"]["index_blob"], segment["index_from"], segment["index_to"]
        )
        found = len(lines) // INPUT_ENTRY_BYTES
        if found != segment["lines"]:
            raise Invalid(f"{found} lines in the index of {segment['_id']}, not {segment['lines']}")
        data = await self._read(batch["input"]["ranges"], lines)
        async with AsyncExitStack() as open_archives:
            results, archives = [], []
            for source in sources:
                results.append(await self._results(source, segment))
                archives.append(await self._open(open_archives, source))
            formats = [self._formats(format_of(source)) for source in sources]
            yield Stored(lines, data, results, archives, formats)

    async def _read(self, ranges: Sequence[Mapping[str, Any]], lines: bytes) -> bytes:
        first, last = unpack_input(lines[:INPUT_ENTRY_BYTES] + lines[-INPUT_ENTRY_BYTES:])
        return await self._inputs.read(ranges, first.offset, last.offset + last.length - first.offset)

    async def _results(self, source: Document, segment: Document) -> bytes:
        if source["archive"] is None:
            return b""
        async with self._archives.open(source["archive"]["index_blob"]) as index:
            packed = index.read(0, len(index))
        return results_between(packed, segment["first_line"], segment["last_line"])

    async def _open(self, stack: AsyncExitStack, source: Document) -> tuple[Archived, Archived]:
        output, error = [
            await stack.enter_async_context(self._archives.open(part["blob"])) if part else NOTHING
            for part in ((source["archive"] or {}).get(name) for name in ("output", "error"))
        ]
        return output, error


def format_of(source: Document) -> str:
    """How the source's archive is written; a manifest that does not say means as its provider writes."""
    return str(source.get("format") or source["provider"])
