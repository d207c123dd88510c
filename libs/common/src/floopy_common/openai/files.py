"""Files as clients see them."""

from typing import Literal

import msgspec

UPLOAD_PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
"""Output-only purposes are not among them: nobody uploads a batch's output."""

BATCH_PURPOSE = "batch"
OUTPUT_PURPOSE = "batch_output"
"""The purpose of both of a batch's own files."""


class FileObject(msgspec.Struct, frozen=True, kw_only=True):
    """Every key is always present; `status` is deprecated and still required."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: str
    status_details: str | None = None


class FileDeleted(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True
