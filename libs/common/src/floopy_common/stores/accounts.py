"""Provider accounts: an organisation's key for one provider, sealed."""

from dataclasses import asdict
from urllib.parse import urlsplit

from pydantic import SecretStr

from floopy_common.chassis.clock import Clock, SystemClock
from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.chassis.secrets import Keyring, SealContext, Sealed
from floopy_common.domain.errors import Invalid
from floopy_common.domain.ids import new_account_id

PROVIDERS = ("openai", "anthropic")


class AccountStore:
    """The collection `provider_accounts`."""

    def __init__(self, mongo: Mongo, keyring: Keyring, clock: Clock | None = None) -> None:
        self._accounts = mongo.collection("provider_accounts")
        self._keyring = keyring
        self._clock = clock or SystemClock()

    async def create(self, org_id: str, provider: str, base_url: str | None, api_key: SecretStr) -> Document:
        """A new account; Invalid for an unknown provider, an unusable URL or an empty key.

        Whether an organisation may use `base_url` is for the caller to decide: operators may use any.
        """
        if provider not in PROVIDERS:
            raise Invalid(f"unknown provider {provider!r}; the providers are {', '.join(PROVIDERS)}")
        if not api_key.get_secret_value():
            raise Invalid("the provider's API key is empty")
        account_id = new_account_id()
        url = None if base_url is None else _checked(base_url)
        sealed = self._keyring.seal(api_key, SealContext(org_id, account_id, url))
        account: Document = {
            "_id": account_id,
            "org_id": org_id,
            "provider": provider,
            "base_url": url,
            "secret": asdict(sealed),
            "created_at": self._clock.now(),
            "deleted_at": None,
        }
        await self._accounts.insert_new(account)
        return account

    async def list_for_org(self, org_id: str) -> list[Document]:
        """The organisation's accounts, oldest first, without the deleted ones."""
        wanted = {"org_id": org_id, "deleted_at": None}
        return await self._accounts.find_all(wanted, sort=[("created_at", 1), ("_id", 1)])

    async def get(self, account_id: str) -> Document | None:
        """The account, a deleted one too: what runs on it must still be collected."""
        return await self._accounts.find_one({"_id": account_id})

    async def delete(self, org_id: str, account_id: str) -> bool:
        """Offer the account for no new batch; False when the organisation has no such account."""
        wanted = {"_id": account_id, "org_id": org_id, "deleted_at": None}
        return await self._accounts.update_one(wanted, {"$set": {"deleted_at": self._clock.now()}}) == 1

    def open_key(self, account: Document) -> SecretStr:
        """The provider's key; WrongKey when the document was changed or sealed with another secret."""
        context = SealContext(account["org_id"], account["_id"], account["base_url"])
        return self._keyring.unseal(Sealed(**account["secret"]), context)


def _checked(base_url: str) -> str:
    """The URL without a trailing slash; Invalid unless it is http(s) with a host and nothing secret in it."""
    url = urlsplit(base_url)
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise Invalid("a base URL starts with http:// or https:// and names a host")
    if url.username or url.password or url.query or url.fragment:
        raise Invalid("a base URL has no user, password, query or fragment")
    return base_url.rstrip("/")
