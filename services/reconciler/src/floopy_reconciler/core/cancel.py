"""Cancelling: a provider batch is asked once, again until it listens; what nobody has seen just ends."""

import logging

from floopy_common.domain.shard import ShardState
from floopy_common.providers.port import BatchProvider, NotFound, ProviderBatch, ProviderError
from floopy_reconciler.ports import Document, Hit, LooksStore

_log = logging.getLogger(__name__)


def wants_cancel(shard: Document) -> bool:
    """The batch ends, and the provider has not yet taken the request to cancel."""
    return shard["state"] == ShardState.SUBMITTED.value and shard.get("cancel_asked_at") is not None


async def cancel_upstream(
    provider: BatchProvider, shard: Document, shards: LooksStore, hit: Hit
) -> ProviderBatch | None:
    """Ask the provider to cancel; the batch as it is then, None when it would not answer.

    Asking again is harmless, so a crash between the call and the record costs one more call.
    Raises NotFound when the provider does not know the batch.
    """
    try:
        seen = await provider.cancel(shard["provider_batch_id"])
    except NotFound:
        raise
    except ProviderError as error:
        _log.warning(
            "the provider did not take a cancel",
            extra={"event": "cancel_failed", "shard_id": shard["_id"], "cause": str(error)},
        )
        return None
    hit("cancel.after_provider_call")
    await shards.cancel_accepted(shard)
    return seen
