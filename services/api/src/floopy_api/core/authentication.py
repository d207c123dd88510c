"""Who calls: an API key, remembered for a while so that most calls need no look-up."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from floopy_api.errors import Unauthenticated
from floopy_api.ports import ApiKeys, Monotonic

T = TypeVar("T")

_REMEMBERED = 10_000
"""Keys of each kind: a few megabytes, however many are tried."""

_MISSING = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header "
    "using Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
)
_WRONG = "Incorrect API key provided. Keys of this service start with flp_."


@dataclass(frozen=True)
class Caller:
    org_id: str
    key_id: str


class TimedCache(Generic[T]):
    """Remembers values for `ttl` seconds, the newest `size` of them."""

    def __init__(self, ttl: float, size: int, monotonic: Monotonic) -> None:
        self._ttl = ttl
        self._size = size
        self._monotonic = monotonic
        self._kept: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()

    def get(self, key: Hashable) -> T | None:
        """The value; None when it was never kept or is too old."""
        found = self._kept.get(key)
        if found is None:
            return None
        until, value = found
        if self._monotonic() < until:
            return value
        del self._kept[key]
        return None

    def keep(self, key: Hashable, value: T) -> None:
        self._kept.pop(key, None)
        if len(self._kept) >= self._size:
            self._kept.popitem(last=False)
        self._kept[key] = (self._monotonic() + self._ttl, value)

    def drop(self, key: Hashable) -> None:
        self._kept.pop(key, None)


class Authenticator:
    """Turns an Authorization header into a caller; holds digests of keys, never a key."""

    def __init__(
        self,
        keys: ApiKeys,
        *,
        is_well_formed: Callable[[str], bool],
        ttl: float,
        monotonic: Monotonic,
        remembered: int = _REMEMBERED,
    ) -> None:
        self._keys = keys
        self._is_well_formed = is_well_formed
        self._known: TimedCache[Caller] = TimedCache(ttl, remembered, monotonic)
        # apart, so that no flood of made-up keys can push out real ones
        self._unknown: TimedCache[bool] = TimedCache(ttl, remembered, monotonic)

    async def authenticate(self, authorizations: list[str]) -> Caller:
        """The caller; Unauthenticated unless there is one header with one key of ours in use."""
        key = _bearer(authorizations)
        if not self._is_well_formed(key):
            raise _wrong()
        digest = hashlib.sha256(key.encode()).digest()
        caller = self._known.get(digest) or await self._look_up(key, digest)
        if caller is None:
            raise _wrong()
        return caller

    async def _look_up(self, key: str, digest: bytes) -> Caller | None:
        if self._unknown.get(digest):
            return None
        found = await self._keys.find_by_key(key)
        if found is None:
            self._unknown.keep(digest, True)
            return None
        caller = Caller(org_id=found["org_id"], key_id=found["_id"])
        self._known.keep(digest, caller)
        return caller


def _bearer(authorizations: list[str]) -> str:
    if not authorizations:
        raise Unauthenticated(_MISSING)
    scheme, _, key = authorizations[0].partition(" ")
    if len(authorizations) > 1 or scheme.lower() != "bearer":
        raise Unauthenticated(_MISSING)
    if not key.strip():
        raise Unauthenticated(_MISSING)
    return key.strip()


def _wrong() -> Unauthenticated:
    return Unauthenticated(_WRONG, code="invalid_api_key")
