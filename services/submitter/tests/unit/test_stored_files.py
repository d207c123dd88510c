"""Files of messages are held in memory for as long as they are few."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from floopy_submitter.core import stored_files
from floopy_submitter.core.pinning import PinnedFile
from floopy_submitter.core.stored_files import StoredFiles


class Reader:
    """Counts how often anything is read."""

    def __init__(self) -> None:
        self.reads = 0

    async def read_ranges(self, *_: Any) -> AsyncGenerator[bytes, None]:
        self.reads += 1
        await asyncio.sleep(0)
        yield b"12345678"


async def test_files_that_several_jobs_ask_for_at_once_count_once(monkeypatch: Any) -> None:
    monkeypatch.setattr(stored_files, "_REMEMBERED", 24)
    reader: Any = Reader()
    nobody: Any = None
    files = StoredFiles(nobody, nobody, reader, 1_000)
    known = {name: PinnedFile(name, 8, []) for name in ("file-1", "file-2")}

    await asyncio.gather(*(files.load(known, ["file-1"]) for _ in range(8)))
    await files.load(known, ["file-2"])
    reads = reader.reads
    for name in known:
        await files.load(known, [name])

    assert reader.reads == reads, "both are held"
