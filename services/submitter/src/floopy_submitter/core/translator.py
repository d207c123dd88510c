"""Translates the lines of one batch, when it is planned and whenever it is sent, always the same way."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence

from msgspec import Raw

from floopy_common.providers.anthropic.policy import Context
from floopy_common.providers.anthropic.refusal import Refused
from floopy_common.providers.anthropic.request import (
    TRANSLATOR_VERSION,
    Translated,
    file_ids_of,
    translate,
    upstream_element,
)
from floopy_submitter.core.pinning import Pinned, from_bytes, with_files
from floopy_submitter.core.stored_files import StoredFiles
from floopy_submitter.errors import LinesRefused
from floopy_submitter.ports import Document, SmallBlobs

_AT_ONCE = 250
"""Lines between two turns of the event loop: some 10 ms."""
_BATCHES = 8
"""Batches whose context a process remembers."""

Bodies = Sequence[tuple[int, Raw]]
"""Line numbers, and the bodies of the requests as the user wrote them."""

_FRAME = len(upstream_element("0123456789", 0, b"")) - len("0")


def upstream_size(line_no: int, params: bytes) -> int:
    """Bytes of the line's element and of the comma before the next."""
    return _FRAME + len(str(line_no)) + len(params) + 1


class Translator:
    """One batch's."""

    def __init__(self, pinned: Pinned, salt: bytes, files: StoredFiles) -> None:
        self._pinned = pinned
        self._context = pinned.context(salt)
        self._files = files

    async def translate(self, bodies: Bodies) -> list[Translated | Refused]:
        """One outcome for each, in order. Raises BlobMissing or BlobCorrupt for a file that is gone."""
        outcomes: list[Translated | Refused] = []
        for number, (_, body) in enumerate(bodies, start=1):
            wanted = file_ids_of(body) if self._pinned.files else ()
            context = await self._with_files(wanted) if wanted else self._context
            outcomes.append(translate(body, context))
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        return outcomes

    async def _with_files(self, wanted: Sequence[str]) -> Context:
        return with_files(self._context, await self._files.load(self._pinned.files, wanted))

    async def lines(self, nonce: str, bodies: Bodies) -> list[bytes]:
        """The upstream elements. Raises LinesRefused for a line that was to be sent and now cannot be."""
        elements = []
        outcomes = await self.translate(bodies)
        for (line_no, _), outcome in zip(bodies, outcomes, strict=True):
            if isinstance(outcome, Refused):
                raise LinesRefused(f"line {line_no} cannot be translated any more: {outcome.message}")
            elements.append(upstream_element(nonce, line_no, outcome.params))
        return elements


class Translators:
    """A translator for every batch that is being sent, as its plan says."""

    version = TRANSLATOR_VERSION

    def __init__(self, blobs: SmallBlobs, files: StoredFiles, salt: Callable[[str], bytes]) -> None:
        """`salt` by organisation: its end users are told apart upstream, and from nobody else's."""
        self._blobs = blobs
        self._files = files
        self._salt = salt
        self._known: OrderedDict[str, Translator] = OrderedDict()

    async def of(self, batch: Document) -> Translator:
        blob = batch["plan"]["translation_blob"]
        if blob not in self._known:
            pinned = from_bytes(await self._blobs.read_bytes(blob))
            self._known[blob] = self.make(batch, pinned)
            if len(self._known) > _BATCHES:
                self._known.popitem(last=False)
        self._known.move_to_end(blob)
        return self._known[blob]

    def make(self, batch: Document, pinned: Pinned) -> Translator:
        return Translator(pinned, self._salt(batch["org_id"]), self._files)
