"""Whether a batch wants a shard of its submitted."""

from floopy_common.domain.batch import BatchStatus
from floopy_common.domain.ids import shard_id
from floopy_common.domain.shard import ShardKind
from floopy_submitter.ports import Document


def is_stale(batch: Document | None, shard: Document) -> bool:
    """No batch will ever want the shard."""
    if batch is None or BatchStatus(batch["status"]).is_terminal:
        return True
    if batch["status"] == BatchStatus.FINALIZING.value:
        # its other shards had all ended: this one is from a worker that was paused before it stored it
        return True
    return batch["plan"] is not None and batch["plan"]["plan_id"] != shard["plan_id"]


def may_submit(batch: Document | None, shard: Document) -> bool:
    return (
        batch is not None
        and batch["status"] == BatchStatus.IN_PROGRESS.value
        and batch["plan"]["plan_id"] == shard["plan_id"]
        and batch["ending"] is None
    )


def is_alone(shard: Document, batch: Document) -> bool:
    """Whether a shard that is submitted is all there is of its batch: neither split, nor settled yet."""
    is_whole = shard["_id"] == shard_id(shard["plan_id"], 0) and not shard.get("splits")
    return is_whole and batch["plan"]["shards"] == 1 and shard["kind"] == ShardKind.PRIMARY.value
