"""Idempotency keys of what is made by one insert: the same request twice is one document."""

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Protocol

import msgspec

from floopy_api.core.authentication import Caller
from floopy_api.errors import Conflict
from floopy_api.ports import Document
from floopy_common.domain.errors import Transient

KEY_LIVES = timedelta(hours=24)
"""How long a key stands for what it made."""
_TRIES = 3
"""A key that is taken and let go again more often than that is used by several clients at once."""


class Keys(Protocol):
    """A store whose documents may hold an `idempotency_key`, unique among those of their API key."""

    async def find_by_idempotency_key(self, org_id: str, api_key_id: str, key: str, /) -> Document | None: ...

    async def release_idempotency_key(self, document_id: str, key: str, /) -> None: ...


class Keyed(Keys, Protocol):
    async def insert(self, document: Document, /) -> bool: ...


def keyed(document: Document, key: str | None, *request: Any) -> Document:
    """The document with its idempotency key and a digest of what was asked for; as it is without a key."""
    if key is None:
        return document
    digest = hashlib.sha256(msgspec.json.encode(request)).hexdigest()
    return {**document, "idempotency_key": key, "request_hash": digest}


async def find_earlier(
    store: Keys, caller: Caller, key: str, request_hash: str, is_over: Callable[[Document], bool]
) -> Document | None:
    """What an earlier sending of the same request made; a key whose document `is_over` is let go.

    Conflict when the key was used for a different request.
    """
    found = await store.find_by_idempotency_key(caller.org_id, caller.key_id, key)
    if found is None:
        return None
    if is_over(found):
        await store.release_idempotency_key(found["_id"], key)
        return None
    if found["request_hash"] != request_hash:
        raise Conflict(
            "This Idempotency-Key was used for a different request. Use a new key for a new request.",
            param="Idempotency-Key",
            code="idempotency_key_reused",
        )
    return found


async def insert_once(store: Keyed, caller: Caller, document: Document, now: datetime) -> Document:
    """What is stored: this document, or the one an earlier sending of the same request made.

    Conflict when the key was used for a different request.
    """
    for _ in range(_TRIES):
        if await store.insert(document):
            return document
        key = document.get("idempotency_key")
        if key is None:
            break
        found = await find_earlier(store, caller, key, document["request_hash"], lambda it: _is_over(it, now))
        if found is not None:
            return found
    raise Transient("an id or an idempotency key was taken meanwhile")


def _is_over(found: Document, now: datetime) -> bool:
    """Whether the key stands for something that is too old or gone."""
    expires_at = found["expires_at"]
    return found["created_at"] < now - KEY_LIVES or (expires_at is not None and expires_at <= now)
