"""Uploads: files that arrive in parts; the parts' blobs become the file, nothing is copied."""

import hashlib
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta

from floopy_api.core.authentication import Caller
from floopy_api.core.files import Stored, Wish, check_content, file_document, to_wire
from floopy_api.core.first_line import FirstLine
from floopy_api.core.once import insert_once, keyed
from floopy_api.core.rules import missing, shortened, unix_of
from floopy_api.core.upload_rules import MAX_PARTS, CompleteUpload, read_complete, read_create
from floopy_api.errors import BadRequest, NotFound
from floopy_api.ports import Bytes, Document, FileStore, Hit, Now, UploadStore
from floopy_common.domain.errors import BlobMissing
from floopy_common.domain.ids import new_part_id, new_upload_id
from floopy_common.openai.files import BATCH_PURPOSE
from floopy_common.openai.uploads import UploadObject, UploadPart, UploadStatus

_log = logging.getLogger(__name__)

FAILPOINTS = {
    "api.part.after_blob": "a part's bytes are stored, its upload does not name it",
    "api.upload.after_complete": "an upload is completed, its file is not stored",
    "api.upload.after_file": "the file of an upload is stored, the upload still keeps its parts",
}

_REPEATS = 3
"""Times the announced bytes may arrive: a client that repeats a part does not know that it was stored."""
_AT_ONCE = 100


@dataclass(frozen=True)
class UploadPorts:
    """Where uploads are kept, and the files they become."""

    uploads: UploadStore
    files: FileStore
    bytes: Bytes


@dataclass(frozen=True)
class UploadLimits:
    """Sizes in bytes; `lifetime` of an upload and `age` of what is forgotten in seconds."""

    max_bytes: int
    max_part_bytes: int
    lifetime: float
    age: float


class Uploads:
    def __init__(self, ports: UploadPorts, limits: UploadLimits, *, now: Now, hit: Hit) -> None:
        self.limits = limits
        self._ports = ports
        self._now = now
        self._hit = hit

    async def create(self, caller: Caller, body: object, key: str | None = None) -> UploadObject:
        """A new upload; with an idempotency key the one that the same request made before."""
        request = read_create(body, self.limits.max_bytes)
        now = self._now()
        wish = request.wish
        upload: Document = {
            "_id": new_upload_id(),
            "org_id": caller.org_id,
            "api_key_id": caller.key_id,
            "filename": wish.filename,
            "purpose": wish.purpose,
            "lifetime": wish.lifetime,
            "bytes": request.bytes,
            "mime_type": request.mime_type,
            "created_at": now,
            "expires_at": now + timedelta(seconds=self.limits.lifetime),
            "status": UploadStatus.PENDING.value,
            "received": 0,
            "part_count": 0,
            "parts": [],
            "part_ids": None,
            "file": None,
        }
        stored = await insert_once(self._ports.uploads, caller, keyed(upload, key, request), now)
        return upload_to_wire(stored)

    async def check_room(self, caller: Caller, upload_id: str, length: int) -> None:
        """Refuse a part that the upload would not take; asked again when the part is added."""
        upload = await self._owned(caller, upload_id)
        if upload["status"] != UploadStatus.PENDING:
            raise _closed("add a part to", upload)
        if upload["received"] + length > _REPEATS * upload["bytes"]:
            raise BadRequest(
                f"This Upload was created for {upload['bytes']} bytes; its parts have far more.",
                param="data",
            )
        if upload["part_count"] >= MAX_PARTS:
            raise BadRequest(f"An Upload has at most {MAX_PARTS} parts.", param="data")

    async def check_part(self, caller: Caller, upload_id: str, length: int | None) -> None:
        """Refuse what arrived, while it can still be thrown away; None: no part did."""
        if length is None:
            raise missing("data")
        if length == 0:
            raise BadRequest("A part of an Upload has at least one byte.", param="data")
        await self.check_room(caller, upload_id, length)

    async def add_part(self, caller: Caller, upload_id: str, stored: Stored) -> UploadPart:
        self._hit("api.part.after_blob")
        upload = await self._owned(caller, upload_id)
        part: Document = {
            "id": new_part_id(),
            "blob": stored.blob,
            "length": stored.length,
            "sha256": stored.sha256,
            "created_at": self._now(),
        }
        most = _REPEATS * upload["bytes"]
        if not await self._ports.uploads.add_part(upload_id, part, most, MAX_PARTS):
            await self.check_room(caller, upload_id, stored.length)
            raise BadRequest("This Upload has no room for another part.", param="data")
        return UploadPart(id=part["id"], created_at=unix_of(part["created_at"]), upload_id=upload_id)

    async def complete(self, caller: Caller, upload_id: str, body: object) -> UploadObject:
        """Make the parts a file; completing again with the same parts gives the same file."""
        request = read_complete(body)
        upload = await self._owned(caller, upload_id, parts=True)
        if upload["status"] == UploadStatus.PENDING:
            file = await self._joined(upload, request)
            completed = await self._ports.uploads.complete(upload_id, request.part_ids, file)
            if completed is not None:
                self._hit("api.upload.after_complete")
            upload = completed or await self._owned(caller, upload_id)
        if upload["status"] != UploadStatus.COMPLETED or upload["part_ids"] != request.part_ids:
            raise _closed("complete", upload)
        if not upload["settled"]:
            await self._settle(upload)
        return upload_to_wire(upload)

    async def cancel(self, caller: Caller, upload_id: str) -> UploadObject:
        """End an upload and let go of its parts; one that was cancelled stays as it is."""
        cancelled = None
        upload = await self._owned(caller, upload_id)
        if upload["status"] == UploadStatus.PENDING:
            cancelled = await self._ports.uploads.cancel(upload_id)
            upload = cancelled or await self._owned(caller, upload_id)
        if upload["status"] != UploadStatus.CANCELLED:
            raise _closed("cancel", upload)
        return upload_to_wire(upload)

    async def tidy(self) -> bool:
        """Expire and forget what is overdue, and finish what a process that died left half done."""
        await self._ports.uploads.expire()
        await self._ports.uploads.purge(self.limits.age)
        await self._ports.files.purge(self.limits.age)
        unsettled = await self._ports.uploads.list_unsettled(_AT_ONCE)
        for upload in unsettled:
            try:
                await self._settle(upload)
            except BlobMissing:
                # bytes that somebody else removed do not come back
                _log.exception("upload lost", extra={"event": "upload_lost", "upload_id": upload["_id"]})
                await self._ports.uploads.settle(upload["_id"])
        return len(unsettled) == _AT_ONCE

    async def _settle(self, upload: Document) -> None:
        """Store the file; the upload lets go of its parts only then."""
        await self._ports.files.insert(upload["file"])
        self._hit("api.upload.after_file")
        await self._ports.uploads.settle(upload["_id"])

    async def _joined(self, upload: Document, request: CompleteUpload) -> Document:
        """The file that these parts in this order are; BadRequest unless they are what was announced."""
        parts = _chosen(upload, request.part_ids)
        wish = Wish(upload["filename"], upload["purpose"], upload["lifetime"])
        stored = [Stored(part["blob"], part["length"], part["sha256"]) for part in parts]
        owner = Caller(upload["org_id"], upload["api_key_id"])
        file = file_document(owner, wish, stored, self._now())
        if file["bytes"] != upload["bytes"]:
            raise BadRequest(
                f"The parts have {file['bytes']} bytes together, "
                f"but the Upload was created for {upload['bytes']}.",
                param="part_ids",
            )
        await self._check_content(file, request.md5)
        return file

    async def _check_content(self, file: Document, md5: str | None) -> None:
        """Reads no more than it must: to the end for a checksum, else to the first line of a batch."""
        first_line = FirstLine()
        digest = hashlib.md5(usedforsecurity=False)
        async with aclosing(self._content(file)) as pieces:
            if md5 is not None or file["purpose"] == BATCH_PURPOSE:
                async for piece in pieces:
                    first_line.feed(piece)
                    if md5 is not None:
                        digest.update(piece)
                    elif first_line.is_settled:
                        break
        check_content(file["purpose"], first_line)
        if md5 is not None and digest.hexdigest() != md5:
            raise BadRequest(
                f"The content has the md5 {digest.hexdigest()}, not {md5}.", param="md5", code="invalid_value"
            )

    def _content(self, file: Document) -> AsyncGenerator[bytes, None]:
        return self._ports.bytes.read_ranges(file["ranges"])

    async def _owned(self, caller: Caller, upload_id: str, *, parts: bool = False) -> Document:
        upload = await self._ports.uploads.get_owned(caller.org_id, upload_id, parts=parts)
        if upload is None:
            raise NotFound(f"No such Upload object: {upload_id}", param="id")
        return upload


def upload_to_wire(upload: Document) -> UploadObject:
    file = upload["file"]
    return UploadObject(
        id=upload["_id"],
        bytes=upload["bytes"],
        created_at=unix_of(upload["created_at"]),
        expires_at=unix_of(upload["expires_at"]),
        filename=upload["filename"],
        purpose=upload["purpose"],
        status=UploadStatus(upload["status"]),
        file=None if file is None else to_wire(file),
    )


def _chosen(upload: Document, part_ids: Sequence[str]) -> list[Document]:
    """The named parts in their order; BadRequest for one that is unknown or named twice."""
    known = {part["id"]: part for part in upload["parts"]}
    chosen = []
    for part_id in part_ids:
        part = known.pop(part_id, None)
        if part is None:
            raise BadRequest(
                f"'{shortened(part_id)}' is not a part of this Upload, or is named twice.", param="part_ids"
            )
        chosen.append(part)
    if not chosen:
        raise BadRequest("An Upload is completed with at least one part.", param="part_ids")
    return chosen


def _closed(what: str, upload: Document) -> BadRequest:
    if upload["status"] == UploadStatus.COMPLETED and what == "complete":
        return BadRequest("This Upload was completed with other parts.", param="part_ids")
    return BadRequest(f"Cannot {what} an Upload with status '{upload['status']}'.")
