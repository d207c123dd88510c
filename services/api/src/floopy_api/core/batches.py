"""Batches: create, get, list, cancel, for one organisation at a time."""

import asyncio
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
    fingerprint,
    read_create,
)
from floopy_api.core.customers import Customers
from floopy_api.core.once import KEY_LIVES, find_earlier
from floopy_api.core.refresh import Refresher
from floopy_api.core.sendings import Sending, look
from floopy_api.errors import BadRequest, Conflict, NotFound, QuotaExceeded
from floopy_api.ports import BatchStore, Caps, Document, FileStore, Hit, Now, Pins, Wake
from floopy_common.domain.batch import BatchStatus, Ending
from floopy_common.domain.errors import Transient
from floopy_common.domain.ids import new_batch_id
from floopy_common.domain.plans import Plan, plan_named

BY = "floopy-api"
"""Who relays the events written here."""

FAILPOINTS = {
    "api.create.after_pin": "the input's blobs are pinned, the batch is not stored",
    "api.create.after_insert": "the batch is stored, its creator has no answer yet",
}

_SENDINGS = 300
"""More equal requests than are let in at the same time: each try one of them gets its batch."""
_DECISIONS = 8
"""More than the moves a batch's life has, so running out of them means something else is wrong."""


@dataclass(frozen=True)
class _Facts:
    """What there was at one moment: who asks, where it runs, and the input's file (None: there is none)."""

    org: Document
    account: Document
    plan: Plan
    file: Document | None


@dataclass(frozen=True)
class BatchPorts:
    """What batches are made from and kept in."""

    batches: BatchStore
    files: FileStore
    pins: Pins
    caps: Caps


class Batches:
    """`window` is the completion window in seconds; `wake` hurries the relay of events."""

    def __init__(
        self,
        ports: BatchPorts,
        customers: Customers,
        refresher: Refresher,
        *,
        window: float,
        now: Now,
        wake: Wake,
        hit: Hit,
    ) -> None:
        self._ports = ports
        self._customers = customers
        self._refresher = refresher
        self._window = window
        self._now = now
        self._wake = wake
        self._hit = hit

    async def create(self, caller: Caller, body: object, options: CreateOptions) -> Document:
        """A new batch, or the one an earlier sending of the same request made."""
        request = read_create(body)
        request_hash = fingerprint(body, options.headers)
        sending = self._sending(caller, request_hash, options)
        # side by side, as neither needs the other; what an earlier sending made or forbids counts first
        found, facts = await asyncio.gather(
            self._earlier(caller, sending, options),
            self._look_up(caller, request, options),
            return_exceptions=True,
        )
        if isinstance(found, BaseException):
            raise found
        earlier, marks = found
        if earlier is not None:
            return earlier
        if isinstance(facts, BaseException):
            raise facts
        batch = batch_document(await self._begin(caller, request, options, request_hash, facts))
        self._hit("api.create.after_pin")
        for _ in range(_SENDINGS):
            if await self._announce({**batch, **marks}):
                self._hit("api.create.after_insert")
                self._wake()
                return batch
            earlier, marks = await self._earlier(caller, sending, options)
            if earlier is not None:
                await self._ports.pins.unpin(batch["_id"])
                return earlier
        await self._ports.pins.unpin(batch["_id"])
        raise Transient("too many equal requests at the same time")

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
                fields={"ending": Ending.CANCELLED.value, "ending_at": now, "next_look_at": now},
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

    async def _announce(self, batch: Document) -> bool:
        return await self._ports.batches.announce(
            batch, event="batch.created", by=BY, now=batch["created_at"]
        )

    def _sending(self, caller: Caller, request_hash: str, options: CreateOptions) -> Sending:
        began = self._now() - timedelta(seconds=options.elapsed)
        # batches are dated in whole milliseconds
        began = began.replace(microsecond=began.microsecond // 1000 * 1000)
        return Sending(caller.key_id, request_hash, options.retry_count, began)

    async def _earlier(
        self, caller: Caller, sending: Sending, options: CreateOptions
    ) -> tuple[Document | None, Document]:
        """The batch an earlier sending made; what marks a new one as made by this sending."""
        if options.idempotency_key is not None:
            return await self._by_key(caller, sending.request_hash, options.idempotency_key), {}
        found, number = await look(self._ports.batches, sending, self._now())
        return found, sending.marks(number)

    async def _by_key(self, caller: Caller, request_hash: str, key: str) -> Document | None:
        oldest = self._now() - KEY_LIVES
        return await find_earlier(
            self._ports.batches, caller, key, request_hash, lambda it: it["created_at"] < oldest
        )

    async def _look_up(self, caller: Caller, request: CreateBatch, options: CreateOptions) -> _Facts:
        """What a new batch depends on; refuses what cannot run. Changes nothing."""
        org, account = await self._customers.choose(caller.org_id, options.headers.get(PROVIDER_HEADER))
        check_supported(account["provider"], request.endpoint)
        plan = plan_named(org["plan"])
        now = self._now()
        _, file = await asyncio.gather(
            self._check_cap(caller.org_id, plan.monthly_line_cap, f"{now:%Y%m}"),
            self._ports.files.get_owned(caller.org_id, request.input_file_id),
        )
        return _Facts(org, account, plan, file)

    async def _begin(
        self,
        caller: Caller,
        request: CreateBatch,
        options: CreateOptions,
        request_hash: str,
        facts: _Facts,
    ) -> Beginning:
        batch_id = new_batch_id()
        return Beginning(
            batch_id=batch_id,
            caller=caller,
            request=request,
            options=options,
            request_hash=request_hash,
            org=facts.org,
            plan=facts.plan,
            account=facts.account,
            input=await self._pinned_input(facts.file, batch_id),
            # dated last: a sending that comes in while this one looks things up is older than the batch
            created_at=self._now(),
            window=self._window,
        )

    async def _check_cap(self, org_id: str, cap: int | None, month: str) -> None:
        """Refuse at once what the planner would refuse anyway; only the planner reserves."""
        if cap is not None and await self._ports.caps.used(org_id, month) >= cap:
            raise QuotaExceeded(
                f"Your organisation has used all {cap} lines that its plan includes this month.",
                code="insufficient_quota",
            )

    async def _pinned_input(self, file: Document | None, batch_id: str) -> Document | None:
        """The file as it is now, its bytes kept for the batch; None for a file there is not."""
        if file is None:
            return None
        if not await self._ports.pins.pin_all((part["blob"] for part in file["ranges"]), batch_id):
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
