"""The outbox: an event waits in the very document whose change it tells of, until the broker has it."""

import logging
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
        """Relay up to a hundred documents' entries, oldest entry of a document first; True when any was."""
        pending = await self._collection.find_all(
            {"outbox.id": {"$exists": True}, "outbox.by": self._by}, {"outbox": 1}, limit=_BATCH
        )
        for document in pending:
            await self._relay(document)
        return bool(pending)

    async def _relay(self, document: Document) -> None:
        for pending in document["outbox"]:
            if pending["by"] != self._by:
                continue
            await self._sender.send(pending["topic"], pending["key"].encode(), bytes(pending["value"]))
            # a crash before this line sends the event once more, with the same id
            await self._collection.update_one(
                {"_id": document["_id"]}, {"$pull": {"outbox": {"id": pending["id"]}}}
            )
            _log.debug("relayed", extra={"event": "relayed", "id": pending["id"]})
