"""HTTP handlers of /batches."""

import os
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from floopy_simulator.clock import Clock
from floopy_simulator.config import Config
from floopy_simulator.openai.batches import Batch, BatchStore, LineError, Status, new_batch_id, to_wire
from floopy_simulator.openai.endpoints import BATCH_ENDPOINTS
from floopy_simulator.openai.errors import ApiError
from floopy_simulator.openai.files import FileStore, new_file_id
from floopy_simulator.openai.paging import page, read_limit
from floopy_simulator.openai.problems import to_api_error
from floopy_simulator.openai.responses import json_response
from floopy_simulator.openai.runner import Runner

MAX_PAIRS, MAX_NAME, MAX_VALUE = 16, 64, 512


class OutputExpiry(msgspec.Struct, forbid_unknown_fields=True):
    anchor: Literal["created_at"]
    seconds: Annotated[int, Meta(ge=3600, le=2_592_000)]


class CreateBatch(msgspec.Struct, forbid_unknown_fields=True):
    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, Any] | None = None
    output_expires_after: OutputExpiry | None = None


class BatchHandlers:
    def __init__(
        self,
        *,
        batches: BatchStore,
        files: FileStore,
        runner: Runner,
        clock: Clock,
        config: Callable[[], Config],
    ) -> None:
        self._batches = batches
        self._files = files
        self._runner = runner
        self._clock = clock
        self._config = config

    async def create(self, request: web.Request, key: str) -> web.StreamResponse:
        body = await request.read()
        try:
            wanted = msgspec.json.decode(body, type=CreateBatch)
        except msgspec.DecodeError as error:
            raise to_api_error(error, body, CreateBatch) from error
        _check(wanted)
        batch = self._make(wanted, key)
        self._keep_input(batch)
        self._batches.write(batch)
        self._runner.follow(batch)
        return self._answer(batch)

    async def list(self, request: web.Request, key: str) -> web.StreamResponse:
        limit = read_limit(request, default=20, maximum=100)
        seen_before = self._clock.now() - self._config().list_lag
        found = [batch for batch in self._batches.all_of(key) if batch.created_at <= seen_before]
        return json_response(page(request, found, limit, self._to_wire))

    async def get(self, request: web.Request, key: str) -> web.StreamResponse:
        return self._answer(self._find(request, key))

    async def cancel(self, request: web.Request, key: str) -> web.StreamResponse:
        batch = self._find(request, key)
        if batch.status in {Status.COMPLETED, Status.FAILED, Status.EXPIRED}:
            message = f"Cannot cancel a batch with status '{batch.status}'."
            raise ApiError(409, message, headers={"x-should-retry": "false"})
        if batch.status not in {Status.CANCELLING, Status.CANCELLED}:
            self._runner.cancel(batch)
        return self._answer(batch)

    def _answer(self, batch: Batch) -> web.Response:
        return json_response(self._to_wire(batch))

    def _to_wire(self, batch: Batch) -> dict[str, object]:
        return to_wire(batch, self._clock.now(), self._config().count_lag)

    def _find(self, request: web.Request, key: str) -> Batch:
        batch_id = request.match_info["batch_id"]
        batch = self._batches.find(key, batch_id)
        if batch is None:
            raise ApiError(404, f"No batch found with id '{batch_id}'.")
        return batch

    def _make(self, wanted: CreateBatch, key: str) -> Batch:
        now = self._clock.now()
        expiry = wanted.output_expires_after
        return Batch(
            id=new_batch_id(),
            seq=self._batches.next_seq(),
            key=key,
            endpoint=wanted.endpoint,
            input_file_id=wanted.input_file_id,
            completion_window=wanted.completion_window,
            metadata=wanted.metadata,
            output_lifetime=None if expiry is None else expiry.seconds,
            output_file_id=new_file_id(),
            error_file_id=new_file_id(),
            created_at=now,
            expires_at=now + self._config().window_seconds,
        )

    def _keep_input(self, batch: Batch) -> None:
        """A hard link: the batch keeps its input even when the file is deleted."""
        record = self._files.find(batch.key, batch.input_file_id)
        if record is not None and record.purpose == "batch":
            os.link(self._files.path(record.id), self._batches.input_path(batch))


def parse_errors(values: list[dict[str, Any]]) -> list[LineError]:
    """Raises msgspec.ValidationError."""
    return msgspec.convert(values, list[LineError])


def _check(wanted: CreateBatch) -> None:
    if wanted.endpoint not in BATCH_ENDPOINTS:
        allowed = ", ".join(f"'{endpoint}'" for endpoint in BATCH_ENDPOINTS)
        message = f"Invalid endpoint: '{wanted.endpoint}'. Supported values are: {allowed}."
        raise ApiError(400, message, param="endpoint", code="invalid_value")
    if wanted.completion_window != "24h":
        message = f"Invalid value: '{wanted.completion_window}'. Supported values are: '24h'."
        raise ApiError(400, message, param="completion_window", code="invalid_value")
    _check_metadata(wanted.metadata or {})


def _check_metadata(metadata: dict[str, Any]) -> None:
    if len(metadata) > MAX_PAIRS:
        message = (
            f"Invalid 'metadata': too many properties. Expected an object with at most {MAX_PAIRS} "
            f"properties, but got an object with {len(metadata)} properties instead."
        )
        raise ApiError(400, message, param="metadata", code="object_above_max_properties")
    for name, value in metadata.items():
        if not isinstance(value, str):
            message = (
                f"Invalid type for 'metadata.{name}': expected a string, but got {_word(value)} instead."
            )
            raise ApiError(400, message, param=f"metadata.{name}", code="invalid_type")
        for text, limit in ((name, MAX_NAME), (value, MAX_VALUE)):
            if len(text) > limit:
                message = (
                    f"Invalid 'metadata': string too long. Expected a string with maximum length {limit}, "
                    f"but got a string with length {len(text)} instead."
                )
                raise ApiError(400, message, param="metadata", code="string_above_max_length")


def _word(value: object) -> str:
    names = {bool: "a boolean", int: "an integer", float: "a decimal", list: "an array", dict: "an object"}
    return names.get(type(value), "null")
