"""What requests about uploads must say, each rule refused in OpenAI's words."""

import re
from dataclasses import dataclass
from typing import Any

from floopy_api.core.files import Wish, make_wish
from floopy_api.core.rules import (
    kind_of,
    lifetime,
    missing,
    required_string,
    shortened,
    too_long,
    within,
    wrong_type,
)
from floopy_api.errors import BadRequest

MAX_PARTS = 2_000
"""Of one upload: with parts of 5 MB, small ones, more than the largest file has."""

_ID_CHARS = 256
_NAME_CHARS = 4_096
_MIME_CHARS = 256
_PURPOSE_CHARS = 64
_MD5 = re.compile(r"[0-9a-f]{32}", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class CreateUpload:
    """An upload to be made: the file it is to become, and its announced size."""

    wish: Wish
    bytes: int
    mime_type: str


@dataclass(frozen=True)
class CompleteUpload:
    """The parts in the file's order; `md5` of the whole content as lower-case hex, where it is given."""

    part_ids: list[str]
    md5: str | None


def read_create(body: object, max_bytes: int) -> CreateUpload:
    """BadRequest for the first rule the body breaks. Fields we do not know are ignored."""
    fields = _object(body)
    filename = required_string(fields, "filename", _NAME_CHARS)
    purpose = required_string(fields, "purpose", _PURPOSE_CHARS)
    size = fields.get("bytes")
    if size is None:
        raise missing("bytes")
    if isinstance(size, bool) or not isinstance(size, int):
        raise wrong_type("bytes", "an integer", size)
    within(size, "bytes", 1, max_bytes)
    mime_type = required_string(fields, "mime_type", _MIME_CHARS)
    asked = fields.get("expires_after")
    seconds = None if asked is None else lifetime(asked, "expires_after")
    return CreateUpload(make_wish(filename, purpose, seconds), size, mime_type)


def read_complete(body: object) -> CompleteUpload:
    """BadRequest for the first rule the body breaks."""
    fields = _object(body)
    part_ids = fields.get("part_ids")
    if part_ids is None:
        raise missing("part_ids")
    if not isinstance(part_ids, list):
        raise wrong_type("part_ids", "an array of strings", part_ids)
    for at, part_id in enumerate(part_ids):
        if not isinstance(part_id, str):
            raise wrong_type(f"part_ids[{at}]", "a string", part_id)
        if len(part_id) > _ID_CHARS:
            raise too_long(f"part_ids[{at}]", _ID_CHARS, len(part_id))
    return CompleteUpload(part_ids, _checksum(fields.get("md5")))


def _checksum(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise wrong_type("md5", "a string", value)
    if not _MD5.fullmatch(value):
        raise BadRequest(
            f"Invalid 'md5': expected 32 hexadecimal digits, but got '{shortened(value)}' instead.",
            param="md5",
            code="invalid_value",
        )
    return value.lower()


def _object(body: object) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise BadRequest(f"Invalid type for the request body: expected an object, but got {kind_of(body)}.")
    return body
