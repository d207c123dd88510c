"""The outbox: an event waits in the very document whose change it tells of, until the broker has it."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from floopy_common.chassis.mongo import Collection, Document

_log = logging.getLogger(__name__)

_BATCH = 100


class EventSender(Protocol):
    async def send(self, topic: str, key: bytes, value: bytes) -> object:
        """Return once the broker has acknowledged the record."""
        ...


def entry(*, event_id: str, topic: str, key: str, by: str, value: bytes) -> Document:
    """One pending event; `by` is the service that relays it."""
    return {"id": event_id, "topic": topic, "key": key, "by": by, "value": value}


class OutboxRelay:
    """Sends what `by` has pending in one collection; an event may repeat, none is lost."""

    def __init__(self, collection: Collection, sender: EventSender, by: str) -> None:
        self._collection = collection
        self._sender = sender
        self._by = by

    async def step(self) -> bool:
        """Relay up to a hundred documents' entries, oldest entry of a document first; True when there may be
        more of them.
        """
        pending = await self._collection.find_all(
            {"outbox.id": {"$exists": True}, "outbox.by": self._by}, {"outbox": 1}, limit=_BATCH
        )
        sent: dict[str, list[str]] = {document["_id"]: [] for document in pending}
        try:
            results = await asyncio.gather(
                *(self._send(document["outbox"], sent[document["_id"]]) for document in pending),
                return_exceptions=True,
            )
        finally:
            # a crash before this sends events once more, with the same ids
            await self._clear(sent)
        for failure in results:
            if failure is not None:
                raise failure
        return len(pending) == _BATCH

    async def _send(self, outbox: Sequence[Document], sent: list[str]) -> None:
        for pending in outbox:
            if pending["by"] == self._by:
                await self._sender.send(pending["topic"], pending["key"].encode(), bytes(pending["value"]))
                sent.append(pending["id"])

    async def _clear(self, sent: Mapping[str, Sequence[str]]) -> None:
        await self._collection.update_each(
            [({"_id": key}, {"$pull": {"outbox": {"id": {"$in": ids}}}}) for key, ids in sent.items() if ids]
        )
        for ids in sent.values():
            for event_id in ids:
                _log.debug("relayed", extra={"event": "relayed", "id": event_id})
