"""`floopy batches held|resume|give-up`: shards whose tries came to nothing anybody knows of."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from floopy.commands.administration import (
    DataDirOption,
    JsonOption,
    RefusedError,
    Row,
    Stores,
    administer,
    show,
)
from floopy_common.stores.operating import OperatorStore

BatchArgument = Annotated[str, typer.Argument(metavar="BATCH_ID")]
ShardOption = Annotated[str | None, typer.Option("--shard", help="Only this one of the batch's shards.")]
_Decide = Callable[[OperatorStore, str], Awaitable[bool]]


def held(
    batch: Annotated[str | None, typer.Option("--batch", help="Only of this batch.")] = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the shards that wait for a decision of yours, longest first."""

    async def work(stores: Stores) -> list[Row]:
        return [_to_row(shard) for shard in await OperatorStore(stores.mongo).held(batch)]

    show(administer("batches held", data_dir, work), as_json)


def resume(
    batch_id: BatchArgument,
    shard: ShardOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have the batch's waiting shards tried once more.

    Look at the provider's own list of batches before: one that is there in spite of all would run twice.
    """
    decided = administer("batches resume", data_dir, _decision(batch_id, shard, OperatorStore.resume))
    show({"batch_id": batch_id, "resumed": decided}, as_json)


def give_up(
    batch_id: BatchArgument,
    shard: ShardOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """End the batch's waiting shards: their lines go to its error file, the others are not affected."""
    decided = administer("batches give-up", data_dir, _decision(batch_id, shard, OperatorStore.give_up))
    show({"batch_id": batch_id, "given_up": decided}, as_json)


def _decision(
    batch_id: str, shard_id: str | None, decide: _Decide
) -> Callable[[Stores], Awaitable[list[str]]]:
    async def work(stores: Stores) -> list[str]:
        store = OperatorStore(stores.mongo)
        waiting = [shard["_id"] for shard in await store.held(batch_id)]
        chosen = [name for name in waiting if shard_id in {None, name}]
        decided = [name for name in chosen if await decide(store, name)]
        if not decided:
            raise RefusedError(f"no shard of batch {batch_id} waits for a decision")
        return decided

    return work


def _to_row(shard: dict[str, Any]) -> Row:
    return {
        "id": shard["_id"],
        "batch_id": shard["batch_id"],
        "org_id": shard["org_id"],
        "provider": shard["provider"],
        "account_id": shard["account_id"],
        "lines": shard["lines"],
        "attempts": len(shard["attempts"]),
        "since": shard["waiting"]["since"],
    }
