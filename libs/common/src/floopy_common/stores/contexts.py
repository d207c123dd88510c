"""Contexts of batches: what sinks need to know of a batch, immutable, so a small cache never goes stale."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from floopy_common.chassis.mongo import Document, Mongo

CAPACITY: Final = 2_000
"""Batches whose lines are on their way at the same time, with room to spare; a context is under 2 KB."""


class ContextStore:
    """Reads `batches.context`; the least recently used are forgotten first."""

    def __init__(self, mongo: Mongo, capacity: int = CAPACITY) -> None:
        self._batches = mongo.collection("batches")
        self._capacity = capacity
        self._known: OrderedDict[str, Document] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    async def get_many(self, batch_ids: Iterable[str]) -> dict[str, Document]:
        """The context of each batch; one that does not exist is left out, and asked for again next time."""
        wanted = set(batch_ids)
        found = {batch_id: self._known[batch_id] for batch_id in wanted if batch_id in self._known}
        for batch_id in found:
            self._known.move_to_end(batch_id)
        if missing := sorted(wanted - found.keys()):
            for batch in await self._batches.find_all({"_id": {"$in": missing}}, {"context": 1}):
                found[batch["_id"]] = self._known[batch["_id"]] = batch["context"]
        while len(self._known) > self._capacity:
            self._known.popitem(last=False)
        return found
