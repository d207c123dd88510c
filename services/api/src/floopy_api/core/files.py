"""Files: what an upload must be, what is stored of it, and how it is shown."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from floopy_api.core.authentication import Caller
from floopy_api.core.first_line import FirstLine
from floopy_api.core.once import insert_once, keyed
from floopy_api.core.rules import lifetime, missing, unix, unix_of, whole_number, wrong_type, wrong_value
from floopy_api.errors import BadRequest, NotFound
from floopy_api.ports import Document, FileStore, Now, Order
from floopy_common.domain.ids import new_file_id
from floopy_common.openai.files import BATCH_PURPOSE, UPLOAD_PURPOSES, FileDeleted, FileObject
from floopy_common.openai.pages import Page, page_of

_BATCH_LIFETIME = 30 * 86_400
"""Seconds a batch's input is kept when the upload does not say."""

_FILENAME_BYTES = 255
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_NOT_JSONL = "Invalid file format for Batch API. Must be .jsonl"


@dataclass(frozen=True)
class Stored:
    """The bytes of an upload, published as one blob."""

    blob: str
    length: int
    sha256: str


@dataclass(frozen=True)
class Wish:
    """What an upload asks for: its name, its purpose, and how long it is to live (None: for ever)."""

    filename: str
    purpose: str
    lifetime: int | None


class Files:
    def __init__(self, files: FileStore, now: Now) -> None:
        self._files = files
        self._now = now

    async def add(self, caller: Caller, wish: Wish, stored: Stored, key: str | None = None) -> FileObject:
        """Make the blob a file of the caller's organisation; with an idempotency key once only."""
        now = self._now()
        file = keyed(file_document(caller, wish, [stored], now), key, wish, stored.sha256)
        return to_wire(await insert_once(self._files, caller, file, now))

    async def get(self, caller: Caller, file_id: str) -> Document:
        """The file; NotFound for whatever this organisation does not have."""
        file = await self._files.get_owned(caller.org_id, file_id)
        if file is None:
            raise _unknown(file_id)
        return file

    async def delete(self, caller: Caller, file_id: str) -> FileDeleted:
        if not await self._files.delete_owned(caller.org_id, file_id):
            raise _unknown(file_id)
        return FileDeleted(id=file_id)

    async def list(
        self, caller: Caller, *, purpose: str | None, limit: int, order: Order, after: str | None
    ) -> Page[FileObject]:
        position = None
        if after is not None:
            position = await self._files.find_position(caller.org_id, after)
            if position is None:
                raise BadRequest(f"No such File object: {after}", param="after")
        found = await self._files.list_owned(
            caller.org_id, purpose=purpose, limit=limit + 1, order=order, after=position
        )
        return page_of([to_wire(file) for file in found[:limit]], has_more=len(found) > limit)


def file_document(owner: Caller, wish: Wish, parts: Sequence[Stored], created_at: datetime) -> Document:
    """A new file: its parts' bytes in this order, where they are."""
    expires_at = None if wish.lifetime is None else created_at + timedelta(seconds=wish.lifetime)
    return {
        "_id": new_file_id(),
        "org_id": owner.org_id,
        "api_key_id": owner.key_id,
        "filename": wish.filename,
        "purpose": wish.purpose,
        "bytes": sum(part.length for part in parts),
        "created_at": created_at,
        "expires_at": expires_at,
        "deleted_at": None,
        "ranges": [
            {"blob": part.blob, "offset": 0, "length": part.length, "sha256": part.sha256} for part in parts
        ],
        "etag": _etag([part.sha256 for part in parts]),
        "status": "processed",
        "batch_id": None,
        "kind": "upload",
    }


def _etag(digests: Sequence[str]) -> str:
    """That of the bytes where they are one blob, else one over the parts' in order."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def to_wire(file: Document) -> FileObject:
    return FileObject(
        id=file["_id"],
        bytes=file["bytes"],
        created_at=unix_of(file["created_at"]),
        expires_at=unix(file.get("expires_at")),
        filename=file["filename"],
        purpose=file["purpose"],
        status=file["status"],
    )


def check_upload(filename: str | None, fields: Mapping[str, str], first_line: FirstLine) -> Wish:
    """What the form asks for, once all of it is here: its parts come in any order."""
    if filename is None:
        raise missing("file")
    wish = make_wish(filename, fields.get("purpose"), _asked_lifetime(fields))
    check_content(wish.purpose, first_line)
    return wish


def make_wish(filename: str, purpose: str | None, seconds: int | None) -> Wish:
    """A file that may be made, with the lifetime it gets when none was asked for."""
    if purpose is None:
        raise missing("purpose")
    if purpose not in UPLOAD_PURPOSES:
        raise wrong_value("purpose", purpose, UPLOAD_PURPOSES)
    if purpose == BATCH_PURPOSE and seconds is None:
        seconds = _BATCH_LIFETIME
    return Wish(clean_filename(filename), purpose, seconds)


def check_content(purpose: str, first_line: FirstLine) -> None:
    """Refuse what cannot be a batch's input; the planner reads the rest."""
    if purpose == BATCH_PURPOSE and not first_line.is_object():
        raise BadRequest(_NOT_JSONL)


def clean_filename(name: str) -> str:
    """The name as it was sent, without what no name has: control characters, half characters, too many."""
    encoded = _CONTROLS.sub("", name.encode(errors="replace").decode())
    return encoded.encode()[:_FILENAME_BYTES].decode(errors="ignore") or "upload"


def _asked_lifetime(fields: Mapping[str, str]) -> int | None:
    """From `expires_after[anchor]` and `expires_after[seconds]`, or one JSON field."""
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if "expires_after" in fields:
        return lifetime(_decoded(fields["expires_after"]), "expires_after")
    if anchor is None and seconds is None:
        return None
    number = None if seconds is None else whole_number(seconds, "expires_after.seconds")
    return lifetime({"anchor": anchor, "seconds": number}, "expires_after")


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        raise wrong_type("expires_after", "an object", text) from None


def _unknown(file_id: str) -> NotFound:
    return NotFound(f"No such File object: {file_id}", param="id")
