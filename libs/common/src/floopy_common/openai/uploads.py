"""Uploads and their parts as clients see them."""

from enum import StrEnum
from typing import Literal

import msgspec

from floopy_common.openai.files import FileObject


class UploadStatus(StrEnum):
    """An upload is `pending` until one of the others ends it."""

    PENDING = "pending"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class UploadObject(msgspec.Struct, frozen=True, kw_only=True):
    """`bytes` is what was announced; `file` is there once the upload is completed."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: UploadStatus
    file: FileObject | None


class UploadPart(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str
