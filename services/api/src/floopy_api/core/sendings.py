"""One request, sent several times: which batch its sendings share.

A client that sees no answer sends its request again, perhaps while the first is still being worked on.
Batches of equal requests are numbered, and the database gives each number once: of two sendings that look at
the same time only one can take the next number, and the other looks again and finds its batch.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from floopy_api.ports import BatchStore, Document

_RETRY_WINDOW = timedelta(minutes=15)
"""An SDK gives up repeating a request long before."""


@dataclass(frozen=True)
class Sending:
    """One sending: `count` is how many went before it, `began` when its head came in."""

    api_key_id: str
    request_hash: str
    count: int
    began: datetime

    def marks(self, number: int) -> Document:
        """What the batch it makes carries."""
        return {"nth": number, "sendings": [self.count]}


async def look(batches: BatchStore, sending: Sending, now: datetime) -> tuple[Document | None, int]:
    """The batch that another sending of the same request made, and the number of the next batch."""
    newest = await batches.find_newest_equal(sending.api_key_id, sending.request_hash)
    if newest is None:
        return None, 0
    found = None
    if newest["created_at"] >= sending.began:
        # made while this one was on its way; a later sending may have been the faster
        found = await batches.join_later_sending(
            sending.api_key_id, sending.request_hash, sending.began, sending.count
        )
    if found is None and sending.count > 0:
        # in this order: an earlier sending that joins in between is met here, the other would miss it
        found = await batches.absorb_retry(
            sending.api_key_id, sending.request_hash, now - _RETRY_WINDOW, sending.count
        )
    return found, newest["nth"] + 1
