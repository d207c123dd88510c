"""Submitting a claimed shard: prepare, fence, create, record; each step survives a crash after it.

Three writes: the claim begins the attempt, the fence says where its input is, the record ends it.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from floopy_common.domain.errors import BlobCorrupt, BlobMissing, LeaseLost
from floopy_common.domain.shard import AttemptPhase, ShardState, WaitReason
from floopy_common.providers.port import (
    AccountMissing,
    Ambiguous,
    AttemptInput,
    BatchProvider,
    CreateRequest,
    NotAccepted,
    ProviderBatch,
    ProviderDirectory,
    Unavailable,
)
from floopy_submitter.core.input import ShardInput
from floopy_submitter.core.orphans import OrphanKeeper
from floopy_submitter.core.refusing import Refuser, refused_as_a_whole
from floopy_submitter.core.splitting import Splitter
from floopy_submitter.core.waiting import Backoff, Breaker, reason_of
from floopy_submitter.core.wanted import may_submit
from floopy_submitter.errors import LinesRefused, NoTurn, TooLate, WrongPlan
from floopy_submitter.ports import (
    Announce,
    BatchReader,
    Changed,
    Claim,
    CreateTurn,
    CreateTurns,
    Document,
    Hit,
    Hold,
    Report,
    StoredShards,
    Submitted,
)

_log = logging.getLogger(__name__)

_ACCOUNT_WIDE = frozenset({WaitReason.RATE_LIMITED, WaitReason.BLOCKED})
_UNCLEAR = frozenset({AttemptPhase.CREATING.value, AttemptPhase.UNKNOWN.value})


@dataclass(frozen=True)
class SubmitTimes:
    """Seconds: a create call may take `create_timeout`, the lease outlives it by `margin`; `defer` until a
    shard that may not be submitted now is thought of again; `first_look` until a provider batch is looked at;
    clocks differ by `clock_skew`.
    """

    create_timeout: float
    margin: float
    defer: float
    first_look: float
    clock_skew: float

    @property
    def call(self) -> float:
        """How long a create is prepared for."""
        return self.create_timeout + self.margin

    @property
    def quiet(self) -> float:
        """After so long, what an earlier create may have left is told from a later one's by its time."""
        return self.call + 2 * self.clock_skew


@dataclass(frozen=True)
class _Ready:
    """An input that a create refers to, `reused` when an earlier claim uploaded it, or that it carries."""

    input: AttemptInput | None = None
    reused: bool = False


@dataclass
class _Creation:
    """The create call of a job, kept where losing the lease does not reach it."""

    attempt_id: str
    call: "asyncio.Task[ProviderBatch]"


class Submitter:
    """Submits shards, each under its lease; see `due.py` for which, and when."""

    def __init__(
        self,
        *,
        shards: StoredShards,
        batches: BatchReader,
        providers: ProviderDirectory,
        inputs: ShardInput,
        splitter: Splitter,
        refuser: Refuser,
        turns: CreateTurns,
        keeper: OrphanKeeper,
        backoff: Backoff,
        breaker: Breaker,
        fail_when_full: bool,
        times: SubmitTimes,
        announce: Announce,
        changed: Changed,
        submitted: Submitted,
        unclear: Callable[[], None],
        report: Report,
        hit: Hit,
    ) -> None:
        self._shards = shards
        self._batches = batches
        self._providers = providers
        self._inputs = inputs
        self._splitter = splitter
        self._refuser = refuser
        self._turns = turns
        self._keeper = keeper
        self._backoff = backoff
        self._breaker = breaker
        self._fail_when_full = fail_when_full
        self._times = times
        self._announce = announce
        self._changed = changed
        self._submitted = submitted
        self._unclear = unclear
        self._report = report
        self._hit = hit

    async def submit(self, claim: Claim, batch: Document) -> None:
        """Submit one claimed shard of `batch`, which was read a moment ago.

        Whatever it ends in, the shard is let go, or its lease runs out.
        """
        started = time.monotonic()
        creations: list[_Creation] = []
        try:
            async with claim.hold() as hold:
                await self._submit(hold, batch, creations)
        except LeaseLost:
            await self._after_losing(claim.shard, creations)
            raise
        state = hold.shard["state"]
        self._report.moved(state)
        if state == ShardState.SUBMITTED.value:
            self._report.submitted(time.monotonic() - started)
            await self._submitted(hold.shard, batch)
            return
        if state == ShardState.SUBMIT_UNKNOWN.value:
            self._unclear()
        await self._changed(claim.shard["batch_id"])

    async def _submit(self, hold: Hold, batch: Document, creations: list[_Creation]) -> None:
        try:
            if hold.shard.get("split"):
                await self._splitter.go_on(hold)
            else:
                await self._try(hold, batch, creations)
        except WrongPlan:
            await hold.hand_back(self._times.defer)
        except NoTurn:
            self._breaker.pause(hold.shard["account_id"], self._times.defer)
            await hold.hand_back(self._times.defer)
        except NotAccepted as refusal:
            await self._not_accepted(hold, refusal)
        except TooLate:
            await hold.unfence()
        except Unavailable as fault:
            await self._wait(hold, WaitReason.UNAVAILABLE, fault.retry_after, str(fault))
        except (BlobMissing, BlobCorrupt, AccountMissing) as fault:
            # another try may find what is missing now; the batch's window bounds how often
            await self._wait(hold, WaitReason.UNAVAILABLE, None, repr(fault))

    async def _try(self, hold: Hold, batch: Document, creations: list[_Creation]) -> None:
        provider = await self._providers.for_account(hold.shard["account_id"])
        try:
            ready = await self._prepare(hold, batch, provider)
            batch = await self._wanted(hold.shard)
            await self._create_in_turn(hold, batch, provider, creations, ready)
        except LinesRefused:
            await self._refuser.refuse(hold, batch)

    async def _wanted(self, shard: Document) -> Document:
        """The batch, read now; WrongPlan unless the shard may be submitted for it."""
        batch = await self._batches.get(shard["batch_id"])
        if batch is None or not may_submit(batch, shard):
            raise WrongPlan(shard["_id"])
        return batch

    async def _prepare(self, hold: Hold, batch: Document, provider: BatchProvider) -> _Ready:
        """An attempt whose input is at the provider, or is ready to go with the create."""
        attempt = _present(hold)
        if attempt["input_file_id"] is not None:
            return _Ready(reused=True)
        upload = await self._inputs.open(batch, hold.shard, attempt)
        input_file_id = await provider.prepare(upload)
        self._hit("submit.after_upload")
        hold.prepared(input_file_id)
        return _Ready(input=upload if input_file_id is None else None)

    async def _create_in_turn(
        self,
        hold: Hold,
        batch: Document,
        provider: BatchProvider,
        creations: list[_Creation],
        ready: _Ready,
    ) -> None:
        """Where batches do not show whose they are: one create at a time, none while another is unclear."""
        times = self._times
        if provider.shows_attempts:
            await self._create(hold, batch, provider, creations, ready)
            return
        await hold.extend(times.call)
        turn = await self._turns.take(hold.shard, times.call, times.quiet)
        if turn is None:
            raise NoTurn(hold.shard["_id"])
        try:
            await self._create(hold, batch, provider, creations, ready, turn)
        finally:
            if all(creation.call.done() for creation in creations):
                await turn.give_back()

    async def _create(
        self,
        hold: Hold,
        batch: Document,
        provider: BatchProvider,
        creations: list[_Creation],
        ready: _Ready,
        turn: CreateTurn | None = None,
    ) -> None:
        times = self._times
        await hold.fence(times.call)
        self._hit("submit.after_fence")
        deadline = time.monotonic() + times.create_timeout
        attempt = _present(hold)
        request = _request(hold.shard, attempt, ready, _guard(hold, deadline, turn))
        # the client's own timeout says more; this one only bounds a client that forgets it
        patience = times.create_timeout + times.margin / 2
        call = asyncio.create_task(_in_time(provider, request, patience))
        creations.append(_Creation(attempt["id"], call))
        try:
            created = await asyncio.shield(call)
        except NotAccepted as refusal:
            if not ready.reused or refusal.status != 404:
                raise
            # the input did not outlive the wait: the next attempt brings another
            await hold.wait(WaitReason.UNAVAILABLE, self._backoff.after(hold.shard, None), anew="input_gone")
        except Ambiguous as fault:
            _log.warning(
                "a create whose outcome is unknown",
                extra={"event": "submit_ambiguous", "shard_id": hold.shard["_id"], "cause": str(fault)},
            )
            await hold.unknown()
            self._hit("submit.after_unknown")
        except asyncio.CancelledError:
            await _stopped(hold, call)
        else:
            self._hit("submit.after_create")
            pending = self._announce(batch, hold.shard["_id"])
            await hold.recorded(created.id, pending, times.first_look, None)
            self._hit("submit.after_record")

    async def _not_accepted(self, hold: Hold, refusal: NotAccepted) -> None:
        """Wait for what passes, split what is too large; a refusal in the provider's words for the rest."""
        reason = reason_of(refusal, fail_when_full=self._fail_when_full)
        if reason is not None:
            await self._wait(hold, reason, self._asked(hold, refusal), str(refusal))
        elif not (refusal.too_large and await self._split(hold)):
            await hold.end(refused_as_a_whole(refusal), "refused")
            self._hit("submit.after_refuse")

    def _asked(self, hold: Hold, refusal: NotAccepted) -> float | None:
        """Seconds to wait at least; a blocked account is tried as seldom as anything is."""
        if not refusal.blocked:
            return refusal.retry_after
        self._report.blocked(hold.shard["provider"])
        _log.error(
            "an account can create nothing until somebody sees to it",
            extra={"event": "account_blocked", "account_id": hold.shard["account_id"], "cause": str(refusal)},
        )
        return self._backoff.longest

    async def _split(self, hold: Hold) -> bool:
        """False when there is nothing to split."""
        batch = await self._batches.get(hold.shard["batch_id"])
        if batch is None:
            raise LeaseLost(hold.shard["_id"])
        return await self._splitter.split(hold, batch)

    async def _wait(self, hold: Hold, reason: WaitReason, retry_after: float | None, cause: str) -> None:
        delay = self._backoff.after(hold.shard, retry_after)
        if reason in _ACCOUNT_WIDE:
            self._breaker.pause(hold.shard["account_id"], delay)
        _log.warning(
            "a shard waits",
            extra={"event": "submit_waits", "shard_id": hold.shard["_id"], "reason": reason, "cause": cause},
        )
        await hold.wait(reason, delay)
        self._hit("submit.after_wait")

    async def _after_losing(self, shard: Document, creations: list[_Creation]) -> None:
        """We are a zombie: what we created and nobody else will take is not to be kept."""
        for creation in creations:
            try:
                created = await creation.call
            except (NotAccepted, Ambiguous, TooLate, LinesRefused, BlobMissing, BlobCorrupt):
                continue
            now = await self._shards.get(shard["_id"])
            if now is not None and not _is_taken_care_of(now, creation.attempt_id, created.id):
                await self._keeper.note(now, creation.attempt_id, [created.id], "zombie")


def _is_taken_care_of(shard: Document, attempt_id: str, provider_batch_id: str) -> bool:
    """Adopted already, or going to be found by whoever still looks for the attempt."""
    if shard["provider_batch_id"] == provider_batch_id:
        return True
    phases = {attempt["id"]: attempt["phase"] for attempt in shard["attempts"]}
    return not ShardState(shard["state"]).is_terminal and phases.get(attempt_id) in _UNCLEAR


def _present(hold: Hold) -> Document:
    if hold.attempt is None:
        raise RuntimeError(f"{hold.shard['_id']} has no attempt")
    return hold.attempt


def _request(
    shard: Document, attempt: Document, ready: _Ready, before_send: Callable[[], None]
) -> CreateRequest:
    return CreateRequest(
        attempt_id=attempt["id"],
        nonce=attempt["nonce"],
        endpoint=shard["endpoint"],
        input_file_id=attempt["input_file_id"],
        before_send=before_send,
        input=ready.input,
    )


def _guard(hold: Hold, deadline: float, turn: CreateTurn | None) -> Callable[[], None]:
    """Stops a call that this worker may no longer make: shard and turn must stay ours until it has ended."""

    def check() -> None:
        left = deadline - time.monotonic()
        ours = hold.seconds_left() if turn is None else min(hold.seconds_left(), turn.seconds_left())
        if left <= 0 or hold.lost or ours < left:
            raise TooLate(hold.shard["_id"])

    return check


async def _in_time(provider: BatchProvider, request: CreateRequest, timeout: float) -> ProviderBatch:
    try:
        async with asyncio.timeout(timeout):
            return await provider.create(request)
    except TimeoutError as error:
        raise Ambiguous(f"no answer within {timeout:g} s") from error


async def _stopped(hold: Hold, call: "asyncio.Task[ProviderBatch]") -> NoReturn:
    """Cancelled in mid-call. A lost lease leaves the call to end; a stopping process leaves it unknown."""
    if not hold.lost:
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await hold.unknown()
    raise asyncio.CancelledError
