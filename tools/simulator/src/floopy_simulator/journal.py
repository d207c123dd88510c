"""Durable records of the simulator: one SQLite file in WAL mode, written only by the event loop's thread."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TABLES = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS documents (
    kind TEXT NOT NULL, id TEXT NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (kind, id));
CREATE TABLE IF NOT EXISTS calls (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, provider TEXT NOT NULL, op TEXT NOT NULL,
    method TEXT NOT NULL, path TEXT NOT NULL, key TEXT, status INTEGER, accepted INTEGER NOT NULL,
    fault TEXT);
CREATE TABLE IF NOT EXISTS executions (body_sha TEXT PRIMARY KEY, times INTEGER NOT NULL);
"""


class Journal:
    """Each statement is its own transaction unless it runs inside `transaction()`.

    WAL with synchronous=NORMAL loses nothing when the process is killed; only a power cut could.
    """

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(TABLES)

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def read_setting(self, name: str) -> bytes | None:
        row = self._db.execute("SELECT body FROM settings WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def write_setting(self, name: str, body: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, body))

    def read_documents(self, kind: str) -> list[bytes]:
        """All bodies of a kind, oldest first."""
        rows = self._db.execute("SELECT body FROM documents WHERE kind = ? ORDER BY seq", (kind,))
        return [row[0] for row in rows]

    def write_document(self, kind: str, id_: str, seq: int, body: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?)", (kind, id_, seq, body))

    def delete_document(self, kind: str, id_: str) -> None:
        self._db.execute("DELETE FROM documents WHERE kind = ? AND id = ?", (kind, id_))

    def begin_call(
        self, *, at: float, provider: str, op: str, method: str, path: str, key: str | None
    ) -> int:
        cursor = self._db.execute(
            "INSERT INTO calls (at, provider, op, method, path, key, accepted) VALUES (?, ?, ?, ?, ?, ?, 0)",
            (at, provider, op, method, path, key),
        )
        if cursor.lastrowid is None:
            raise sqlite3.DatabaseError("no row id for a ledger call")
        return cursor.lastrowid

    def end_call(self, seq: int, *, status: int | None, accepted: bool, fault: str | None) -> None:
        self._db.execute(
            "UPDATE calls SET status = ?, accepted = ?, fault = ? WHERE seq = ?",
            (status, accepted, fault, seq),
        )

    def read_calls(self, after: int = 0) -> list[tuple[object, ...]]:
        """Rows (seq, at, provider, op, method, path, key, status, accepted, fault), oldest first."""
        return self._db.execute("SELECT * FROM calls WHERE seq > ? ORDER BY seq", (after,)).fetchall()

    def read_executions(self) -> dict[str, int]:
        return dict(self._db.execute("SELECT body_sha, times FROM executions"))

    def write_executions(self, times: dict[str, int]) -> None:
        self._db.executemany("INSERT OR REPLACE INTO executions VALUES (?, ?)", times.items())
