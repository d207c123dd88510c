"""Anthropic's message batch as it comes over the wire, read leniently and turned into the port's."""

from datetime import UTC, datetime

import msgspec

from floopy_common.providers.port import ProviderBatch, ProviderStatus

_UNDER_WAY = {
    "in_progress": ProviderStatus.IN_PROGRESS,
    "canceling": ProviderStatus.CANCELLING,
}
_ENDED = "ended"


class _Counts(msgspec.Struct):
    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0


class MessageBatch(msgspec.Struct):
    """What we read of a batch; it carries nothing that its creator could choose."""

    id: str
    processing_status: str
    created_at: datetime
    request_counts: _Counts = msgspec.field(default_factory=_Counts)
    cancel_initiated_at: str | None = None


class MessageBatchPage(msgspec.Struct):
    data: list[MessageBatch]
    has_more: bool = True


_decode_batch = msgspec.json.Decoder(MessageBatch).decode
_decode_page = msgspec.json.Decoder(MessageBatchPage).decode


def read_batch(body: bytes) -> ProviderBatch:
    """Raises MsgspecError or ValueError for what is no batch."""
    return _to_port(_decode_batch(body))


def read_page(body: bytes) -> tuple[list[ProviderBatch], bool]:
    """Likewise for a page of a listing; whether there are more."""
    page = _decode_page(body)
    return [_to_port(batch) for batch in page.data], page.has_more


def _to_port(batch: MessageBatch) -> ProviderBatch:
    counts = batch.request_counts
    never_answered = counts.errored + counts.canceled + counts.expired
    ended = batch.processing_status == _ENDED
    return ProviderBatch(
        id=batch.id,
        status=_status(batch),
        created_at=_with_zone(batch.created_at),
        total=counts.processing + counts.succeeded + never_answered,
        completed=counts.succeeded,
        failed=never_answered,
        # the results follow from the id: `results_url` may lead anywhere and is never followed
        output_file_id=batch.id if ended else None,
    )


def _status(batch: MessageBatch) -> ProviderStatus:
    """`ended` is how a batch ends in any case: finished, cancelled or out of time."""
    if batch.processing_status != _ENDED:
        try:
            return _UNDER_WAY[batch.processing_status]
        except KeyError:
            raise ValueError(f"an unknown processing_status '{batch.processing_status[:50]}'") from None
    if batch.cancel_initiated_at is not None:
        return ProviderStatus.CANCELLED
    return ProviderStatus.EXPIRED if batch.request_counts.expired else ProviderStatus.COMPLETED


def _with_zone(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
