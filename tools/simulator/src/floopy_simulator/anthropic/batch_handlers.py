"""HTTP handlers of /messages/batches."""

from collections.abc import Callable

from aiohttp import web

from floopy_simulator.anthropic.batches import Batch, BatchStore, Status, new_batch_id, to_wire
from floopy_simulator.anthropic.caller import Caller
from floopy_simulator.anthropic.errors import ApiError, invalid, too_large
from floopy_simulator.anthropic.paging import page
from floopy_simulator.anthropic.responses import json_response
from floopy_simulator.anthropic.runner import Runner
from floopy_simulator.anthropic.work import Work
from floopy_simulator.clock import Clock
from floopy_simulator.config import Config
from floopy_simulator.gate import ContentFile

PREFIX = "/anthropic/v1"
CHUNK = 1 << 16


class BatchHandlers:
    def __init__(
        self,
        *,
        batches: BatchStore,
        work: Work,
        runner: Runner,
        clock: Clock,
        config: Callable[[], Config],
    ) -> None:
        self._batches = batches
        self._work = work
        self._runner = runner
        self._clock = clock
        self._config = config

    async def create(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        batch_id = new_batch_id()
        try:
            await self._receive(request, batch_id)
            envelope = await self._work.take_in(batch_id)
            self._check_queue(caller, envelope.total)
        except BaseException:
            self._batches.input_path(batch_id).unlink(missing_ok=True)
            raise
        finally:
            self._batches.body_path(batch_id).unlink(missing_ok=True)
        now = self._clock.now()
        batch = Batch(
            id=batch_id,
            seq=self._batches.next_seq(),
            key=caller.key,
            version=caller.version,
            betas=caller.betas,
            total=envelope.total,
            model=envelope.model,
            created_at=now,
            expires_at=now + self._config().window_seconds,
        )
        self._batches.write(batch)
        self._runner.follow(batch)
        return self._answer(batch, request)

    async def list(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        seen_before = self._clock.now() - self._config().list_lag
        found = [batch for batch in self._batches.all_of(caller.key) if batch.created_at <= seen_before]
        return json_response(page(request, found, lambda batch: self._to_wire(batch, request)))

    async def get(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        return self._answer(self._find(request, caller), request)

    async def cancel(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        batch = self._find(request, caller)
        if batch.is_terminal:
            raise invalid(f"Batch {batch.id} has already ended and cannot be canceled.")
        if batch.status != Status.CANCELING:
            self._runner.cancel(batch)
        return self._answer(batch, request)

    async def delete(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        batch = self._find(request, caller)
        if not batch.is_terminal:
            raise invalid(f"Batch {batch.id} cannot be deleted while it is being processed. Cancel it first.")
        batch.deleted_at = self._clock.now()
        self._batches.write(batch)
        self._batches.results_path(batch).unlink(missing_ok=True)
        return json_response({"id": batch.id, "type": "message_batch_deleted"})

    async def results(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        batch = self._find(request, caller)
        if not batch.is_terminal:
            raise ApiError(404, f"Batch {batch.id} has no results yet: it has not ended.")
        if batch.archived_at(self._clock.now()) is not None:
            raise ApiError(404, f"The results of batch {batch.id} are archived and no longer available.")
        return ContentFile(self._batches.results_path(batch), {"Content-Type": "application/x-jsonl"})

    def _find(self, request: web.Request, caller: Caller) -> Batch:
        batch_id = request.match_info["batch_id"]
        batch = self._batches.find(caller.key, batch_id)
        if batch is None:
            raise ApiError(404, f"Message batch {batch_id} not found.")
        return batch

    def _answer(self, batch: Batch, request: web.Request) -> web.Response:
        return json_response(self._to_wire(batch, request))

    def _to_wire(self, batch: Batch, request: web.Request) -> dict[str, object]:
        return to_wire(batch, self._clock.now(), str(request.url.origin()) + PREFIX)

    def _check_queue(self, caller: Caller, more: int) -> None:
        limit = self._config().queued_request_limit
        if limit is None or self._batches.queued(caller.key) + more <= limit:
            return
        message = (
            f"This batch would exceed your organization's limit of {limit} batch requests in processing. "
            "Please wait until some of your batches have ended."
        )
        raise ApiError(429, message, headers={"Retry-After": "60"})

    async def _receive(self, request: web.Request, batch_id: str) -> None:
        """Straight to disk; what is too large is read to its end, so that the caller sees the answer."""
        most, size = self._config().max_batch_bytes, 0
        with self._batches.body_path(batch_id).open("wb") as body:
            async for chunk in request.content.iter_chunked(CHUNK):
                size += len(chunk)
                if size <= most:
                    body.write(chunk)
        if size > most:
            raise too_large()
