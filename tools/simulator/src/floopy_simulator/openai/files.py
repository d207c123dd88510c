"""Files of the OpenAI half: records in the journal, contents as plain files on disk."""

import os
import secrets
import string
from pathlib import Path
from typing import Literal

import msgspec

from floopy_simulator.clock import Clock
from floopy_simulator.journal import Journal

KIND = "openai.file"
THIRTY_DAYS = 30 * 86400
ALPHABET = string.ascii_letters + string.digits
ORIGINS = Literal["upload", "output", "error"]


class FileRecord(msgspec.Struct, kw_only=True):
    """`origin` tells an uploaded file from the two a batch makes; the API does not show it."""

    id: str
    seq: int
    key: str
    filename: str
    purpose: str
    size: int
    created_at: float
    expires_at: float | None
    origin: ORIGINS = "upload"


def to_wire(record: FileRecord) -> dict[str, object]:
    return {
        "object": "file",
        "id": record.id,
        "purpose": record.purpose,
        "filename": record.filename,
        "bytes": record.size,
        "created_at": int(record.created_at),
        "expires_at": None if record.expires_at is None else int(record.expires_at),
        "status": "processed",
        "status_details": None,
    }


def new_file_id() -> str:
    return "file-" + "".join(secrets.choice(ALPHABET) for _ in range(22))


class FileStore:
    def __init__(self, journal: Journal, clock: Clock, directory: Path) -> None:
        self._journal = journal
        self._clock = clock
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        decoder = msgspec.json.Decoder(FileRecord)
        self._records = {record.id: record for record in map(decoder.decode, journal.read_documents(KIND))}
        self._seq = max((record.seq for record in self._records.values()), default=0)

    def path(self, file_id: str) -> Path:
        return self._directory / file_id

    def find(self, key: str, file_id: str) -> FileRecord | None:
        """A foreign key's file, and an expired one, are as unknown as one that never was."""
        record = self._records.get(file_id)
        if record is None or record.key != key or self._is_expired(record):
            return None
        return record

    def peek(self, file_id: str) -> FileRecord | None:
        """Whoever it belongs to."""
        return self._records.get(file_id)

    def all_of(self, key: str) -> list[FileRecord]:
        """Newest first."""
        return [
            record
            for record in sorted(self._records.values(), key=lambda record: -record.seq)
            if record.key == key and not self._is_expired(record)
        ]

    def add(
        self,
        *,
        file_id: str,
        key: str,
        filename: str,
        purpose: str,
        origin: ORIGINS = "upload",
        lifetime: float | None = None,
    ) -> FileRecord:
        """Registers content that already lies at `path(file_id)`."""
        self._seq += 1
        now = self._clock.now()
        record = FileRecord(
            id=file_id,
            seq=self._seq,
            key=key,
            filename=filename,
            purpose=purpose,
            size=os.path.getsize(self.path(file_id)),
            created_at=now,
            expires_at=None if lifetime is None else now + lifetime,
            origin=origin,
        )
        self._journal.write_document(KIND, file_id, record.seq, msgspec.json.encode(record))
        self._records[file_id] = record
        return record

    def delete(self, record: FileRecord) -> None:
        self._journal.delete_document(KIND, record.id)
        del self._records[record.id]
        self.path(record.id).unlink(missing_ok=True)

    def _is_expired(self, record: FileRecord) -> bool:
        return record.expires_at is not None and self._clock.now() >= record.expires_at
