"""API keys: made once, shown once, found by digest."""

from pydantic import SecretStr

from floopy_common.chassis.clock import Clock, SystemClock
from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.chassis.secrets import KEY_VERSION, Keyring, is_api_key, new_api_key
from floopy_common.domain.ids import new_key_id

_PREFIX_SHOWN = 8
_END_SHOWN = 4
"""Enough to recognise a key in a list: gives away 24 bits of the key and 24 of its checksum."""


class ApiKeyStore:
    """The collection `api_keys`; holds no key, only digests."""

    def __init__(self, mongo: Mongo, keyring: Keyring, clock: Clock | None = None) -> None:
        self._keys = mongo.collection("api_keys")
        self._keyring = keyring
        self._clock = clock or SystemClock()

    async def create(self, org_id: str, name: str) -> tuple[Document, SecretStr]:
        """A new key: its document, and the key itself for the one time it is known."""
        api_key = new_api_key()
        plaintext = api_key.get_secret_value()
        key: Document = {
            "_id": new_key_id(),
            "org_id": org_id,
            "digest": self._keyring.digest(plaintext),
            "pepper_version": KEY_VERSION,
            "prefix": plaintext[:_PREFIX_SHOWN],
            "last4": plaintext[-_END_SHOWN:],
            "name": name,
            "created_at": self._clock.now(),
            "revoked_at": None,
        }
        await self._keys.insert_new(key)
        return key, api_key

    async def find_by_key(self, plaintext: str) -> Document | None:
        """The key's document; None for a key that is malformed, unknown or revoked."""
        if not is_api_key(plaintext):
            return None
        return await self._keys.find_one({"digest": self._keyring.digest(plaintext), "revoked_at": None})

    async def list_for_org(self, org_id: str) -> list[Document]:
        """Every key of the organisation, revoked ones too, oldest first."""
        return await self._keys.find_all({"org_id": org_id}, sort=[("created_at", 1), ("_id", 1)])

    async def revoke(self, org_id: str, key_id: str) -> bool:
        """Make the key useless for good; False when the organisation has no such key in use."""
        in_use = {"_id": key_id, "org_id": org_id, "revoked_at": None}
        return await self._keys.update_one(in_use, {"$set": {"revoked_at": self._clock.now()}}) == 1
