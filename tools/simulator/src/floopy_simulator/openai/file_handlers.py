"""HTTP handlers of /files; uploads go straight to disk."""

from collections.abc import Callable
from pathlib import Path

import msgspec
from aiohttp import BodyPartReader, web

from floopy_simulator.clock import Clock
from floopy_simulator.config import Config
from floopy_simulator.gate import ContentFile
from floopy_simulator.openai.errors import ApiError
from floopy_simulator.openai.files import THIRTY_DAYS, FileRecord, FileStore, new_file_id, to_wire
from floopy_simulator.openai.paging import page, read_limit
from floopy_simulator.openai.responses import json_response

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
CHUNK = 1 << 16
MAX_FIELD = 4096
MAX_ANY_FILE = 512_000_000
NOT_JSONL = "Invalid file format for Batch API. Must be .jsonl"


class Upload(msgspec.Struct, kw_only=True):
    """The parts of a form as they arrive, in any order."""

    path: Path
    filename: str | None = None
    size: int = 0
    fields: dict[str, str] = msgspec.field(default_factory=dict)


class FileHandlers:
    def __init__(self, *, files: FileStore, clock: Clock, config: Callable[[], Config]) -> None:
        self._files = files
        self._clock = clock
        self._config = config

    async def create(self, request: web.Request, key: str) -> web.StreamResponse:
        file_id = new_file_id()
        upload = Upload(path=self._files.path(file_id))
        try:
            await self._receive(request, upload)
            lifetime = self._check(upload)
            record = self._files.add(
                file_id=file_id,
                key=key,
                filename=upload.filename or "upload",
                purpose=upload.fields["purpose"],
                lifetime=lifetime,
            )
        except BaseException:
            upload.path.unlink(missing_ok=True)
            raise
        return json_response(to_wire(record))

    async def list(self, request: web.Request, key: str) -> web.StreamResponse:
        limit = read_limit(request, default=10_000, maximum=10_000)
        seen_before = self._clock.now() - self._config().file_list_lag
        found = [record for record in self._files.all_of(key) if record.created_at <= seen_before]
        if purpose := request.query.get("purpose"):
            found = [record for record in found if record.purpose == purpose]
        order = request.query.get("order", "desc")
        if order not in {"asc", "desc"}:
            message = f"Invalid value: '{order}'. Supported values are: 'asc' and 'desc'."
            raise ApiError(400, message, param="order", code="invalid_value")
        if order == "asc":
            found.reverse()
        return json_response(page(request, found, limit, to_wire))

    async def get(self, request: web.Request, key: str) -> web.StreamResponse:
        return json_response(to_wire(self._find(request, key)))

    async def delete(self, request: web.Request, key: str) -> web.StreamResponse:
        record = self._find(request, key)
        self._files.delete(record)
        return json_response({"object": "file", "deleted": True, "id": record.id})

    async def content(self, request: web.Request, key: str) -> web.StreamResponse:
        record = self._find(request, key)
        if record.purpose in {"assistants", "vision", "user_data"}:
            raise ApiError(400, f"Not allowed to download files of purpose: {record.purpose}")
        headers = {"Content-Type": "application/octet-stream"}
        return ContentFile(self._files.path(record.id), headers=headers)

    def origin(self, request: web.Request) -> str | None:
        """Which kind of file a call names, for faults that wait for one."""
        record = self._files.peek(request.match_info.get("file_id", ""))
        return None if record is None else record.origin

    def _find(self, request: web.Request, key: str) -> FileRecord:
        file_id = request.match_info["file_id"]
        record = self._files.find(key, file_id)
        if record is None:
            raise ApiError(404, f"No such File object: {file_id}", param="id")
        return record

    async def _receive(self, request: web.Request, upload: Upload) -> None:
        if not request.content_type.startswith("multipart/"):
            raise ApiError(400, "Could not parse multipart form", param=None)
        if (request.content_length or 0) > MAX_ANY_FILE + MAX_FIELD:
            raise _too_large(MAX_ANY_FILE)
        try:
            async for part in await request.multipart():
                if isinstance(part, BodyPartReader):
                    await self._receive_part(part, upload)
        except ValueError as error:
            raise ApiError(400, "Could not parse multipart form") from error

    async def _receive_part(self, part: BodyPartReader, upload: Upload) -> None:
        if part.name == "file":
            upload.filename = part.filename or "upload"
            await self._spool(part, upload)
            return
        value = await part.read_chunk(MAX_FIELD)
        upload.fields[part.name or ""] = value.decode(errors="replace")

    async def _spool(self, part: BodyPartReader, upload: Upload) -> None:
        limit = self._limit(upload.fields.get("purpose"))
        upload.size = 0
        with upload.path.open("wb") as content:
            while chunk := await part.read_chunk(CHUNK):
                upload.size += len(chunk)
                if upload.size > limit:
                    raise _too_large(limit)
                content.write(chunk)

    def _limit(self, purpose: str | None) -> int:
        return self._config().max_file_bytes if purpose == "batch" else MAX_ANY_FILE

    def _check(self, upload: Upload) -> float | None:
        """Returns the lifetime the form asks for."""
        purpose = upload.fields.get("purpose")
        for name, value in (("file", upload.filename), ("purpose", purpose)):
            if value is None:
                message = f"Missing required parameter: '{name}'."
                raise ApiError(400, message, param=name, code="missing_required_parameter")
        if purpose not in PURPOSES:
            allowed = ", ".join(f"'{one}'" for one in PURPOSES)
            message = f"Invalid value: '{purpose}'. Supported values are: {allowed}."
            raise ApiError(400, message, param="purpose", code="invalid_value")
        if purpose == "batch":
            if upload.size > self._config().max_file_bytes:
                raise _too_large(self._config().max_file_bytes)
            _check_first_line(upload.path)
        return _lifetime(upload.fields, purpose)


def _check_first_line(path: Path) -> None:
    with path.open("rb") as lines:
        for number, line in enumerate(lines):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line
            if not text.strip():
                continue
            try:
                msgspec.json.decode(text, type=dict)
            except msgspec.DecodeError as error:
                raise ApiError(400, NOT_JSONL) from error
            return
    raise ApiError(400, NOT_JSONL)


def _lifetime(fields: dict[str, str], purpose: str) -> float | None:
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return THIRTY_DAYS if purpose == "batch" else None
    if anchor != "created_at":
        message = "Invalid value for 'expires_after.anchor'. Supported values are: 'created_at'."
        raise ApiError(400, message, param="expires_after.anchor", code="invalid_value")
    if seconds is None or not seconds.isdigit() or not 3600 <= int(seconds) <= THIRTY_DAYS:
        message = "Invalid 'expires_after.seconds': expected an integer between 3600 and 2592000."
        raise ApiError(400, message, param="expires_after.seconds", code="invalid_value")
    return int(seconds)


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"File exceeds the maximum size of {limit} bytes.", headers={"Connection": "close"})
