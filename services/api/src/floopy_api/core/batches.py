"""Batches: create, get, list, cancel, for one organisation at a time."""

from dataclasses import dataclass
from datetime import timedelta

from floopy_api.core.authentication import Caller
from floopy_api.core.create import (
    PROVIDER_HEADER,
    Beginning,
    CreateBatch,
    CreateOptions,
    batch_document,
    check_supported,
    choose_account,
    fingerprint,
    read_create,
)
from floopy_api.core.refresh import Refresher
from floopy_api.errors import BadRequest, Conflict, NotFound, QuotaExceeded, Unauthenticated
from floopy_api.ports import Accounts, BatchStore, Caps, Document, FileStore, Hit, Now, Orgs, Pins, Wake
from floopy_common.domain.batch import BatchStatus, Ending
from floopy_common.domain.errors import Transient
from floopy_common.domain.ids import new_batch_id
from floopy_common.domain.plans import plan_named

BY = "floopy-api"
"""Who relays the events written here."""

FAILPOINTS = {
    "api.create.after_pin": "the input's blobs are pinned, the batch is not stored",
    "api.create.after_insert": "the batch is stored, its creator has no answer yet",
}

_KEY_LIVES = timedelta(hours=24)
"""How long an idempotency key stands for the batch it made."""
_RETRY_WINDOW = timedelta(minutes=15)
"""An SDK gives up repeating a request long before."""
_DECISIONS = 8
"""More than the moves a batch's life has, so running out of them means something else is wrong."""


@dataclass(frozen=True)
class BatchPorts:
    """What batches are made from and kept in."""

    batches: BatchStore
    files: FileStore
    pins: Pins
    accounts: Accounts
    orgs: Orgs
    caps: Caps


class Batches:
    """`window` is the completion window in seconds; `wake` hurries the relay of events."""

    def __init__(
        self, ports: BatchPorts, refresher: Refresher, *, window: float, now: Now, wake: Wake, hit: Hit
    ) -> None:
        self._ports = ports
        self._refresher = refresher
        self._window = window
        self._now = now
        self._wake = wake
        self._hit = hit

    async def create(self, caller: Caller, body: object, options: CreateOptions) -> Document:
        """A new batch, or the one an earlier sending of the same request made."""
        request = read_create(body)
        request_hash = fingerprint(body, options.headers)
        earlier = await self._earlier(caller, request_hash, options)
        if earlier is not None:
            return earlier
        batch = batch_document(await self._begin(caller, request, options, request_hash))
        self._hit("api.create.after_pin")
        if not await self._ports.batches.announce(
            batch, event="batch.created", by=BY, now=batch["created_at"]
        ):
            await self._ports.pins.unpin(batch["_id"])
            return await self._winner(caller, request_hash, options)
        self._hit("api.create.after_insert")
        self._wake()
        return batch

    async def get(self, caller: Caller, batch_id: str) -> Document:
        """The batch as fresh as its provider's last word allows; NotFound for what is not the caller's."""
        batch = await self._owned(caller, batch_id)
        if not self._refresher.is_due(batch):
            return batch
        await self._refresher.refresh(batch_id)
        return await self._owned(caller, batch_id)

    async def list(self, caller: Caller, *, limit: int, after: str | None) -> tuple[list[Document], bool]:
        """Newest first; whether there are more."""
        position = None
        if after is not None:
            position = await self._ports.batches.get_owned(caller.org_id, after)
            if position is None:
                raise BadRequest(_unknown(after), param="after")
        found = await self._ports.batches.list_owned(caller.org_id, limit + 1, position)
        return found[:limit], len(found) > limit

    async def cancel(self, caller: Caller, batch_id: str) -> Document:
        """Ask for the end of a batch; one that is being or has been cancelled stays as it is."""
        for _ in range(_DECISIONS):
            batch = await self._owned(caller, batch_id)
            status = BatchStatus(batch["status"])
            if status in {BatchStatus.CANCELLING, BatchStatus.CANCELLED}:
                return batch
            if not status.is_cancellable:
                raise Conflict(f"Cannot cancel a batch with status '{status.value}'.")
            now = self._now()
            cancelled = await self._ports.batches.transition(
                batch,
                BatchStatus.CANCELLING,
                now=now,
                by=BY,
                event="batch.cancel.requested",
                fields={"ending": Ending.CANCELLED.value, "ending_at": now},
            )
            if cancelled is not None:
                self._wake()
                return cancelled
        raise Transient(f"{batch_id} changes faster than it can be cancelled")

    async def _owned(self, caller: Caller, batch_id: str) -> Document:
        batch = await self._ports.batches.get_owned(caller.org_id, batch_id)
        if batch is None:
            raise NotFound(_unknown(batch_id))
        return batch

    async def _earlier(self, caller: Caller, request_hash: str, options: CreateOptions) -> Document | None:
        if options.idempotency_key is not None:
            return await self._by_key(caller, request_hash, options.idempotency_key)
        if options.retry_count == 0:
            return None
        since = self._now() - _RETRY_WINDOW
        return await self._ports.batches.absorb_retry(caller.key_id, request_hash, since, options.retry_count)

    async def _by_key(self, caller: Caller, request_hash: str, key: str) -> Document | None:
        found = await self._ports.batches.find_by_idempotency_key(caller.org_id, key)
        if found is None:
            return None
        if found["created_at"] < self._now() - _KEY_LIVES:
            await self._ports.batches.release_idempotency_key(found["_id"], key)
            return None
        if found["request_hash"] != request_hash:
            raise Conflict(
                "This Idempotency-Key was used for a different request. Use a new key for a new batch.",
                param="Idempotency-Key",
                code="idempotency_key_reused",
            )
        return found

    async def _winner(self, caller: Caller, request_hash: str, options: CreateOptions) -> Document:
        """The batch that took the idempotency key first."""
        winner = await self._earlier(caller, request_hash, options)
        if winner is None:
            raise Transient("the idempotency key was taken and let go meanwhile")
        return winner

    async def _begin(
        self, caller: Caller, request: CreateBatch, options: CreateOptions, request_hash: str
    ) -> Beginning:
        org = await self._ports.orgs.get(caller.org_id)
        if org is None:
            raise Unauthenticated("The organisation of this API key does not exist any more.")
        accounts = await self._ports.accounts.list_for_org(caller.org_id)
        account = choose_account(accounts, options.headers.get(PROVIDER_HEADER))
        check_supported(account["provider"], request.endpoint)
        plan = plan_named(org["plan"])
        now = self._now()
        await self._check_cap(caller.org_id, plan.monthly_line_cap, f"{now:%Y%m}")
        batch_id = new_batch_id()
        return Beginning(
            batch_id=batch_id,
            caller=caller,
            request=request,
            options=options,
            request_hash=request_hash,
            org=org,
            plan=plan,
            account=account,
            input=await self._pinned_input(caller, request.input_file_id, batch_id),
            created_at=now,
            window=self._window,
        )

    async def _check_cap(self, org_id: str, cap: int | None, month: str) -> None:
        """Refuse at once what the planner would refuse anyway; only the planner reserves."""
        if cap is not None and await self._ports.caps.used(org_id, month) >= cap:
            raise QuotaExceeded(
                f"Your organisation has used all {cap} lines that its plan includes this month.",
                code="insufficient_quota",
            )

    async def _pinned_input(self, caller: Caller, file_id: str, batch_id: str) -> Document | None:
        """The file as it is now, its bytes kept for the batch; None for a file there is not."""
        file = await self._ports.files.get_owned(caller.org_id, file_id)
        if file is None:
            return None
        for blob in dict.fromkeys(part["blob"] for part in file["ranges"]):
            if not await self._ports.pins.pin(blob, batch_id):
                await self._ports.pins.unpin(batch_id)
                return None
        return {
            "ranges": file["ranges"],
            "bytes": file["bytes"],
            "filename": file["filename"],
            "purpose": file["purpose"],
        }


def _unknown(batch_id: str) -> str:
    return f"No batch found with id '{batch_id}'."
